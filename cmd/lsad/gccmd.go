package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lsad/internal/config"
	"lsad/server/admin"
)

func newGC() *cobra.Command {
	t := &target{}
	cmd := group("gc", "See and steer the garbage collection")
	cmd.Example = `  lsad gc status
  lsad gc run
  lsad gc set --period 30s`
	t.flags(cmd)
	cmd.AddCommand(gcStatus(t), gcRun(t), gcSet(t))
	return cmd
}

func gcStatus(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what each device collects, when, and why",
		Long: `Show for each device: the segments that are unused or will be after the next checkpoint, the
thresholds (default low/high and alternative low/high), the time until its turn, what it is
doing, and its collections so far (early/forced/manual).`,
		Example: `  lsad gc status
  lsad gc status --json | jq '.[] | {device, state, time_left_seconds}'`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				all, err := c.GCStatus(ctx)
				if err != nil {
					return err
				}
				return showGC(cmd, t, all)
			})
		},
	}
}

func showGC(cmd *cobra.Command, t *target, all []admin.GCDevice) error {
	if t.json {
		return printJSON(cmd, all)
	}
	out := newTable(cmd.OutOrStdout(), "DEVICE", "MODE", "UNUSED", "LOW/HIGH", "ALT LOW/HIGH", "PERIOD", "LEFT", "STATE", "E/F/M", "SEGMENTS", "MOVED", "LAST")
	for _, d := range all {
		last := "-"
		if n := len(d.Recent); n > 0 {
			r := d.Recent[n-1]
			last = fmt.Sprintf("%s, %d segments in %s", r.Reason, r.Segments, seconds(r.Seconds))
		}
		out.row(d.Device, d.Mode, fmt.Sprintf("%d of %d", d.Unused+d.Pending, d.Total),
			fmt.Sprintf("%d/%d", d.Low, d.High), fmt.Sprintf("%d/%d", d.AltLow, d.AltHigh),
			seconds(d.PeriodSeconds), seconds(d.TimeLeftSeconds), d.State,
			fmt.Sprintf("%d/%d/%d", d.Totals.Early, d.Totals.Forced, d.Totals.Manual),
			strconv.FormatUint(d.Totals.Segments, 10), size(d.Totals.MovedBytes), last)
	}
	return out.flush()
}

// atMostOne takes an optional argument.
func atMostOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return config.Usagef("unexpected argument %q: %s [%s]", args[1], cmd.CommandPath(), what)
		}
		if len(args) == 1 && args[0] == "" { // a variable of a script that is not set does not mean all of them
			return config.Usagef("%s is empty; leave it away for all", what)
		}
		return nil
	}
}

func optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func gcRun(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "run [DEVICE]",
		Short: "Collect now: one device, or all",
		Long:  "Ask a device, or all of them, to collect now, whatever their thresholds say, where there is much to win: above the mark at which a collection ends, only segments of which half is garbage are taken. It does not wait; lsad gc status shows what comes of it.",
		Example: `  lsad gc run
  lsad gc run dev0`,
		Args: atMostOne("DEVICE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				if err := c.GCRun(ctx, optional(args)); err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, map[string]bool{"asked": true})
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "asked for a collection")
				return err
			})
		},
	}
}

func gcSet(t *target) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set [DEVICE]",
		Short: "Change settings, for one device or all",
		Long: `Change settings of the garbage collection while the server runs; they are kept for later starts.
Thresholds are numbers of segments (12) or shares of the device (1.5%). An empty value goes
back to the default.`,
		Example: `  lsad gc set --period 30s
  lsad gc set --low 2% --alt-low 4%
  lsad gc set dev1 --phase 0.5
  lsad gc set --period ''             back to the default`,
		Args: atMostOne("DEVICE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			change := admin.GCChange{Device: optional(args), Set: map[string]string{}}
			settings := append(slices.Clone(gcArraySettings), gcDeviceSettings...)
			cmd.Flags().Visit(func(f *pflag.Flag) {
				if slices.Contains(settings, f.Name) {
					change.Set[f.Name] = f.Value.String()
				}
			})
			if len(change.Set) == 0 {
				return config.Usagef("nothing to set: give at least one setting")
			}
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				all, err := c.GCSet(ctx, change)
				if err != nil {
					return err
				}
				return showGC(cmd, t, all)
			})
		},
	}
	for _, f := range []struct{ name, usage string }{
		{"mode", "`MODE`: timed, or default-only to turn timers and alternative thresholds off"},
		{"policy", "`NAME` of the policy that picks segments"},
		{"placement", "`NAME` of what separates blocks by how long they live"},
		{"period", "`TIME` between two turns of a device, or auto"},
		{"phase", "when in the period the turn of DEVICE comes, `SHARE` from 0 to 1"},
		{"low", "collect at or below so many unused segments, `N` or N%"},
		{"high", "end such a collection at so many, `N` or N%"},
		{"alt-low", "collect at or below so many when its turn comes, `N` or N%"},
		{"alt-high", "end such a collection at so many, `N` or N%"},
	} {
		cmd.Flags().String(f.name, "", f.usage)
	}
	cmd.Flags().SortFlags = false
	return cmd
}
