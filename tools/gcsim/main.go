// Command gcsim simulates garbage collection on an array of devices in virtual time. It drives the code of
// package gc that the server runs, over simulated devices; see package sim.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func main() {
	if err := root().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "gcsim:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "gcsim",
		Short: "Simulate garbage collection of an array in virtual time, with lsad's own collector",
		Long: `gcsim drives lsad's collector (package gc) over simulated devices in virtual time.

  run     one load under each mechanism: who collects when, write amplification, latencies
  curve   the time with two or more devices collecting, from a light to an impossible load
  wa      write amplification of victim policies and placements on one device without service times`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddCommand(runCommand(), curveCommand(), waCommand())
	return c
}
