package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"lsad/internal/blockdev"
	"lsad/internal/config"
	"lsad/tools/bench/gcbench"
)

// gcDevices is how many devices the array has.
const gcDevices = 4

// gcBench measures what clients notice of garbage collection.
type gcBench struct {
	dir, lsad      string
	device         config.Size
	segment        config.Size
	full           float64
	overwrites     float64
	writes, reads  float64
	settle, window time.Duration
	windows        int
	modes          []string
	copies         []int
	json, markdown bool
}

// diskTiming is that of a solid-state disk for servers: it answers the read of a block in some 100 us and a write
// from its own memory, and moves 2 GB/s and 1 GB/s.
var diskTiming = blockdev.Timing{
	Channels: 8, StripeBytes: 16 << 10, Read: 80 * time.Microsecond, Write: 20 * time.Microsecond, Sync: 300 * time.Microsecond,
	ReadBandwidth: 2e9, WriteBandwidth: 1e9,
}

func newGC() *cobra.Command {
	g := &gcBench{device: 512 * config.MiB, segment: 512 * config.KiB}
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Measure what clients notice of garbage collection",
		Long: `Runs lsad on four devices that lie in memory and have the service times of solid-state disks, fills them, and loads
a volume over NBD with a steady rate of random 4 KiB writes and reads: with garbage collection at its defaults, with
default-only, and without any (the same data on devices so large that nothing is ever collected), each with one copy
and with two. It builds an lsad of its own, with the tag lsad_slow. Targets are those that the project set itself.`,
		Example: `  go run ./tools/bench gc
  go run ./tools/bench gc --copies 2 --modes off,timed --window 20s --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.run(cmd) },
	}
	f := cmd.Flags()
	f.Var(&g.device, "device", "size of each of the four devices")
	f.Var(&g.segment, "segment-size", "size of a segment")
	f.Float64Var(&g.full, "full", 0.8, "share of the devices that holds data")
	f.Float64Var(&g.overwrites, "overwrites", 1, "how often the data are overwritten before anything is measured")
	f.Float64Var(&g.writes, "writes", 1000, "writes a second")
	f.Float64Var(&g.reads, "reads", 2000, "reads a second")
	f.DurationVar(&g.settle, "settle", 6*time.Second, "how long the load runs before it is measured")
	f.DurationVar(&g.window, "window", 10*time.Second, "how long each measurement takes")
	f.IntVar(&g.windows, "windows", 3, "measurements; medians are taken over them")
	f.StringSliceVar(&g.modes, "modes", []string{string(gcbench.Off), string(gcbench.Timed), string(gcbench.DefaultOnly)}, "what to compare")
	f.IntSliceVar(&g.copies, "copies", []int{1, 2}, "copies of the volume")
	f.StringVar(&g.dir, "dir", "/dev/shm", "directory, in memory, for devices and metadata")
	f.StringVar(&g.lsad, "lsad", "", "lsad program to measure, built with -tags lsad_slow (default: build it)")
	f.BoolVar(&g.json, "json", false, "print everything as JSON")
	f.BoolVar(&g.markdown, "markdown", false, "print the tables as Markdown")
	f.SortFlags = false
	return cmd
}

func (g *gcBench) check() error {
	for _, m := range g.modes {
		if !slices.Contains([]gcbench.Mode{gcbench.Off, gcbench.Timed, gcbench.DefaultOnly}, gcbench.Mode(m)) {
			return fmt.Errorf("no mode %q; there are %s, %s, %s", m, gcbench.Off, gcbench.Timed, gcbench.DefaultOnly)
		}
	}
	for _, c := range g.copies {
		if c != 1 && c != 2 {
			return fmt.Errorf("%d copies: a volume has one or two", c)
		}
	}
	if g.full <= 0 || g.full > 0.9 || g.overwrites < 0 || g.writes <= 0 || g.reads <= 0 || g.window <= 0 || g.windows < 1 {
		return errors.New("rates, times and the number of windows must be above zero, --full at most 0.9")
	}
	return nil
}

func (g *gcBench) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	if err := g.check(); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(g.dir, "lsad-bench-")
	if err != nil {
		return err
	}
	b := &bench{dir: tmp, lsad: g.lsad}
	defer b.close()
	if b.lsad == "" {
		if b.lsad, err = buildProgram(ctx, tmp, "lsad/cmd/lsad", "-tags", "lsad_slow"); err != nil {
			return err
		}
	}
	r := gcbench.Report{Preface: g.preface(ctx, b)}
	for _, c := range g.copies {
		for _, m := range g.modes {
			s := gcbench.Setup{Mode: gcbench.Mode(m), Copies: c}
			if err := g.setup(ctx, b, &s); err != nil {
				return fmt.Errorf("%s with %d copies: %w", m, c, err)
			}
			r.Setups = append(r.Setups, s)
		}
	}
	r.Judge()
	if g.json {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(&r)
	}
	return r.Write(cmd.OutOrStdout(), g.markdown)
}

func (g *gcBench) preface(ctx context.Context, b *bench) []string {
	m := describeMachine(ctx, b.dir)
	t := &diskTiming
	return []string{
		fmt.Sprintf("Machine: %s, %d cores, %s, %s, %s", m.CPU, m.Cores, m.Memory, m.Kernel, time.Now().UTC().Format(time.DateOnly)),
		fmt.Sprintf("%d devices of %v, segments of %v, %.0f %% full; each %d channels, reads %v, writes %v, %.1f and %.1f GB/s, sync %v",
			gcDevices, g.device, g.segment, 100*g.full, t.Channels, t.Read, t.Write, float64(t.ReadBandwidth)/1e9, float64(t.WriteBandwidth)/1e9, t.Sync),
		fmt.Sprintf("%g writes and %g reads a second of 4 KiB, at random; overwritten %g times before; %d windows of %v",
			g.writes, g.reads, g.overwrites, g.windows, g.window),
	}
}

// volume is the size of the volume with so many copies.
func (g *gcBench) volume(copies int) int64 {
	return int64(float64(g.device)*gcDevices*g.full/float64(copies)) / (1 << 20) << 20
}

// roomy is the size of a device on which nothing is ever collected: a block alone takes an eighth more in the log.
func (g *gcBench) roomy(copies int) config.Size {
	writes := g.writes * (g.settle + time.Duration(g.windows)*g.window).Seconds() * gcbench.BlockSize
	total := (float64(g.volume(copies))*(1+g.overwrites) + writes) * float64(copies) * 9 / 8 * 1.2
	return config.Size(total/gcDevices)/config.MiB*config.MiB + 64*config.MiB
}
