package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"lsad/gc"
	"lsad/tools/gcsim/sim"
)

// amplification is one result of the wa command.
type amplification struct {
	Trace         string  `json:"trace"`
	Policy        string  `json:"policy"`
	Placement     string  `json:"placement"`
	Mode          gc.Mode `json:"mode"`
	Amplification float64 `json:"write_amplification"`
}

func waCommand() *cobra.Command {
	var (
		spec                         = sim.Spec{Devices: 1}
		trace                        sim.TraceSpec
		kinds, policies, places, mod []string
		writes                       int
		asJSON                       bool
	)
	c := &cobra.Command{
		Use:   "wa",
		Short: "Write amplification of victim policies and placements on one device without service times",
		Long: `wa fills one device once, in order, then overwrites as the trace says, and counts the last half. Traces are
uniform, zipf:EXPONENT, hotcold, sequential, and reshuffled:EXPONENT, whose order of popularity is drawn anew half-way.`,
		Example: `  gcsim wa
  gcsim wa --traces uniform --policies greedy --placements none --modes default-only --low 1 --high 2
  gcsim wa --traces zipf:0.8,zipf:1.2,hotcold,reshuffled:1.0`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var all []amplification
			for _, kind := range kinds {
				for _, policy := range policies {
					for _, place := range places {
						for _, mode := range mod {
							s, tr := spec, trace
							s.GC.Policy, s.GC.Placement, s.GC.Mode = policy, place, gc.Mode(mode)
							if err := sim.ParseTrace(kind, &tr); err != nil {
								return err
							}
							wa, err := sim.WriteAmplification(s, tr, writes, 100*time.Microsecond)
							if err != nil {
								return fmt.Errorf("%s, %s, %s: %w", kind, policy, place, err)
							}
							all = append(all, amplification{kind, policy, place, gc.Mode(mode), wa})
						}
					}
				}
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), all)
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', tabwriter.AlignRight)
			fmt.Fprintln(t, "trace\tpolicy\tplacement\tmode\tWA\t")
			for _, a := range all {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.3f\t\n", a.Trace, a.Policy, a.Placement, a.Mode, a.Amplification)
			}
			return t.Flush()
		},
	}
	f := c.Flags()
	f.IntVar(&spec.Blocks, "blocks", 262144, "logical blocks; 0: from --utilisation")
	f.Float64Var(&spec.Utilisation, "utilisation", 0.85, "with --blocks 0: share of the device that holds live blocks")
	f.IntVar(&spec.Segments, "segments", 1205, "segments of the device, the reserve included")
	f.IntVar(&spec.SegmentBlocks, "segment-blocks", 256, "blocks per segment")
	f.IntVar(&writes, "writes", 10, "overwrites, in writes per block")
	f.Uint64Var(&trace.Seed, "seed", 1, "seed of everything random")
	f.Float64Var(&trace.Hot, "hot", 0.1, "hotcold: share of the blocks that are hot")
	f.Float64Var(&trace.Heat, "heat", 0.9, "hotcold: share of the requests that go to them")
	f.StringSliceVar(&kinds, "traces", []string{"zipf:1.0"}, "traces")
	f.StringSliceVar(&policies, "policies", gc.PolicyNames(), "victim policies")
	f.StringSliceVar(&places, "placements", gc.PlacementNames(), "placements")
	f.StringSliceVar(&mod, "modes", []string{string(gc.DefaultOnly)}, "timed, default-only")
	f.Var(&spec.GC.Thresholds.Low, "low", "default low threshold")
	f.Var(&spec.GC.Thresholds.High, "high", "default high threshold")
	f.Var(&spec.GC.Thresholds.AltLow, "alt-low", "alternative low threshold")
	f.Var(&spec.GC.Thresholds.AltHigh, "alt-high", "alternative high threshold")
	f.BoolVar(&asJSON, "json", false, "write JSON")
	return c
}
