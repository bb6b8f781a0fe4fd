package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"lsad/tools/gcsim/sim"
)

// point is one load of a curve under one mechanism.
type point struct {
	Devices     int     `json:"devices"`
	Trace       string  `json:"trace"`
	Utilisation float64 `json:"utilisation"`
	Aim         float64 `json:"aim"`
	sim.Report
}

func curveCommand() *cobra.Command {
	var o options
	var mechanisms, traces []string
	var devices []int
	var utilisations, loads []float64
	var asJSON bool
	c := &cobra.Command{
		Use:   "curve",
		Short: "The time with two or more devices collecting, from a light to an impossible load",
		Long: `curve simulates each combination of --devices-list, --traces and --utilisations at each of --loads. A load is
devices times duty cycle as it would be if collections went at full pace; what was measured is beside it.`,
		Example: `  gcsim curve
  gcsim curve --devices-list 2,4,8,16 --traces uniform,zipf --utilisations 0.5,0.7,0.85 --loads 0.7 --mechanism timers`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var points []point
			w := c.OutOrStdout()
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
			if !asJSON {
				fmt.Fprintln(t, "devices\ttrace\tutil.\tload\tmechanism\tN*duty\t2+ collecting\tearly share\tearly\tforced\tWA\t")
			}
			for _, p := range combine(devices, traces, utilisations, loads) {
				for _, m := range mechanisms {
					if err := p.simulate(&o, m); err != nil {
						return err
					}
					points = append(points, p)
					if !asJSON {
						fmt.Fprintf(t, "%d\t%s\t%.2f\t%.2f\t%s\t%.3f\t%s\t%s\t%d\t%d\t%.3f\t\n", p.Devices, p.Trace, p.Utilisation, p.Aim, m, p.DutySum,
							percent(p.Overlap), percent(p.EarlyShare), p.Early, p.Forced, p.Amplification)
					}
				}
			}
			if asJSON {
				return writeJSON(w, points)
			}
			return t.Flush()
		},
	}
	o.register(c)
	f := c.Flags()
	f.StringSliceVar(&mechanisms, "mechanism", []string{sim.Timers, sim.DefaultOnly}, "mechanisms to simulate")
	f.IntSliceVar(&devices, "devices-list", []int{4}, "numbers of devices")
	f.StringSliceVar(&traces, "traces", []string{"uniform"}, "generated traces")
	f.Float64SliceVar(&utilisations, "utilisations", []float64{0.8}, "utilisations")
	f.Float64SliceVar(&loads, "loads", []float64{.1, .3, .5, .7, .9, 1.1, 1.3, 1.5}, "loads")
	f.BoolVar(&asJSON, "json", false, "write JSON")
	return c
}

// combine makes a point of every combination.
func combine(devices []int, traces []string, utilisations, loads []float64) (all []point) {
	for _, n := range devices {
		for _, kind := range traces {
			for _, u := range utilisations {
				for _, load := range loads {
					all = append(all, point{Devices: n, Trace: kind, Utilisation: u, Aim: load})
				}
			}
		}
	}
	return all
}

// simulate fills in the report of a point under a mechanism.
func (p *point) simulate(o *options, mechanism string) error {
	o.cfg.Spec.Devices, o.cfg.Trace.Kind, o.cfg.Spec.Utilisation = p.Devices, p.Trace, p.Utilisation
	o.cfg.Rate, o.duty = 0, p.Aim
	if err := o.prepare(); err != nil {
		return err
	}
	r, err := sim.Run(o.config(mechanism))
	if err != nil {
		return fmt.Errorf("simulating %s, %d devices, %s, utilisation %v, load %v: %w", mechanism, p.Devices, p.Trace, p.Utilisation, p.Aim, err)
	}
	p.Report = r
	return nil
}
