package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"lsad/tools/gcsim/sim"
)

func runCommand() *cobra.Command {
	var o options
	var mechanisms []string
	var asJSON bool
	var plotFile string
	c := &cobra.Command{
		Use:   "run",
		Short: "One load under each mechanism: who collects when, write amplification, latencies",
		Example: `  gcsim run
  gcsim run --devices 8 --trace zipf --utilisation 0.85 --duty 0.7
  gcsim run --speeds 1,1,0.5,1 --mechanism timers --json
  gcsim run --trace-file io_traces.csv --devices 4 --utilisation 0.8
  gcsim run --copies 2 --plot gc.svg`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(mechanisms) == 0 {
				return fmt.Errorf("--mechanism is empty, want some of %v", sim.Mechanisms)
			}
			if err := o.prepare(); err != nil {
				return err
			}
			var reports []sim.Report
			for _, m := range mechanisms {
				cfg := o.config(m)
				if plotFile != "" {
					cfg.Timeline = 1e6
				}
				r, err := sim.Run(cfg)
				if err != nil {
					return fmt.Errorf("simulating %s: %w", m, err)
				}
				reports = append(reports, r)
			}
			if plotFile != "" {
				if err := os.WriteFile(plotFile, plot(reports), 0o644); err != nil {
					return fmt.Errorf("writing the plot: %w", err)
				}
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), reports)
			}
			return table(c.OutOrStdout(), reports)
		},
	}
	o.register(c)
	c.Flags().StringSliceVar(&mechanisms, "mechanism", sim.Mechanisms, "mechanisms to simulate")
	c.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	c.Flags().StringVar(&plotFile, "plot", "", "write a plot to this SVG file")
	return c
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func table(w io.Writer, reports []sim.Report) error {
	r := reports[0]
	fmt.Fprintf(w, "%d devices of %d segments of %d blocks, %d copies, utilisation %.2f, %.0f requests/s, %s with %s\n\n",
		r.Spec.Devices, r.Spec.Segments, r.Spec.SegmentBlocks, r.Spec.Copies, r.Spec.Utilisation, r.Rate, r.Policy, r.Placement)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "mechanism\tWA\tN*duty\t0\t1\t2+ collecting\tearly\tforced\tread p50\tp99\tp99.9\tp99.99 us\twrite p99.9\tp99.99 us\tstalls\t")
	for _, r := range reports {
		fmt.Fprintf(t, "%s\t%.3f\t%.2f\t%s\t%s\t%s\t%d\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%d\t\n", r.Mechanism, r.Amplification, r.DutySum,
			percent(r.Collecting[0]), percent(at(r.Collecting, 1)), percent(r.Overlap), r.Early, r.Forced,
			r.Reads.P50, r.Reads.P99, r.Reads.P999, r.Reads.P9999, r.Writes.P999, r.Writes.P9999, r.Stalls)
	}
	return t.Flush()
}

func at(s []float64, i int) float64 {
	if i < len(s) {
		return s[i]
	}
	return 0
}

func percent(s float64) string { return fmt.Sprintf("%.2f%%", 100*s) }
