package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lsad/internal/config"
)

// serverNames in the order of columns. Ratios are to the second.
var serverNames = []string{"lsad", reference, "qemu-nbd", "go-nbd"}

// reference is the server that targets refer to.
const reference = "nbdkit"

// options of the comparison.
type options struct {
	dir      string
	lsad     string
	compare  []string
	size     config.Size
	warm     config.Size
	runtime  time.Duration
	rounds   int
	only     []string
	servers  []string
	json     bool
	markdown bool
}

func newNBD() *cobra.Command {
	o := &options{size: config.GiB, warm: 12 * config.GiB}
	cmd := &cobra.Command{
		Use:   "nbd",
		Short: "Measure lsad beside nbdkit, qemu-nbd and go-nbd's server",
		Long: `Runs all servers at once, each with an export of the same size and data on the same file system, and measures
one at a time with fio, server by server within each row and round; the others are stopped (SIGSTOP) meanwhile,
so that what a server puts off it pays itself. Prints medians over the rounds, ratios to nbdkit and the spread.`,
		Example: `  go run ./tools/bench nbd
  go run ./tools/bench nbd --rounds 5 --only randwrite32,randread32 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.DurationVar(&o.runtime, "runtime", 5*time.Second, "how long each measurement takes")
	f.IntVar(&o.rounds, "rounds", 3, "rounds; medians are taken over them")
	f.Var(&o.size, "size", "size of every export")
	f.Var(&o.warm, "warm", "memory to touch before anything is measured, at most half of what is free")
	f.StringVar(&o.dir, "dir", "", "directory for the temporary files (default $TMPDIR or /tmp)")
	f.StringVar(&o.lsad, "lsad", "", "lsad program to measure (default: build it)")
	f.StringArrayVar(&o.compare, "compare", nil, "further lsad program to measure, as a server of its own; may be repeated")
	f.StringSliceVar(&o.only, "only", nil, "rows to measure: "+rowNames())
	f.StringSliceVar(&o.servers, "servers", serverNames, "servers to measure")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.BoolVar(&o.markdown, "markdown", false, "print the table of docs/BENCHMARKS.md")
	f.SortFlags = false
	return cmd
}

func (o *options) run(cmd *cobra.Command) (err error) {
	ctx := cmd.Context()
	chosen, err := chooseRows(o.only)
	if err != nil {
		return err
	}
	if o.rounds < 1 || o.runtime < 100*time.Millisecond {
		return errors.New("at least one round of 100ms is needed")
	}
	b, err := newBench(ctx, o.dir, o.lsad)
	if err != nil {
		return err
	}
	defer b.close()
	warmed, err := warmMemory(int64(o.warm))
	if err != nil {
		return err
	}
	servers, err := o.start(ctx, b)
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.proc.stop())
		}
	}()
	if err != nil {
		return err
	}
	c := &comparison{bench: b, size: int64(o.size), runtime: o.runtime, rows: chosen, servers: servers}
	if err := c.measure(ctx, o.rounds); err != nil {
		return err
	}
	rep := c.report(describeMachine(ctx, b.dir), o.rounds, warmed, strings.Join(os.Args[1:], " "))
	out := cmd.OutOrStdout()
	switch {
	case o.json:
		return rep.writeJSON(out)
	case o.markdown:
		return rep.writeMarkdown(out)
	}
	return rep.writeText(out)
}

// start starts the servers asked for. On an error it returns those that run.
func (o *options) start(ctx context.Context, b *bench) (all []*server, err error) {
	for _, name := range o.servers {
		if !slices.Contains(serverNames, name) {
			return nil, fmt.Errorf("no server %q; there are %s", name, strings.Join(serverNames, ", "))
		}
	}
	volume := "--volume=" + exportName + ":" + o.size.String()
	add := func(s *server, err error) error {
		if err == nil {
			all = append(all, s)
		}
		return err
	}
	for _, name := range o.servers {
		switch name {
		case "lsad":
			err = add(b.startLsad(ctx, name, b.lsad, volume))
		case "nbdkit":
			err = add(b.startNBDKit(ctx, o.size))
		case "qemu-nbd":
			err = add(b.startQemuNBD(ctx, o.size))
		case "go-nbd":
			err = add(b.startGoNBD(ctx, o.size))
		}
		if err != nil {
			return all, err
		}
	}
	for i, program := range o.compare {
		if err = add(b.startLsad(ctx, fmt.Sprintf("lsad-%d", i+2), program, volume)); err != nil {
			return all, err
		}
	}
	return all, nil
}

// comparison measures servers side by side.
type comparison struct {
	bench   *bench
	size    int64
	runtime time.Duration
	rows    []row
	servers []*server
	results map[string]map[string][]fioResult // by row and server
}

// measure does all rounds. In each, who is first changes from row to row and from round to round.
func (c *comparison) measure(ctx context.Context, rounds int) error {
	for _, s := range c.servers {
		fmt.Fprintf(os.Stderr, "prefilling %s\n", s.name)
		if err := prefill(ctx, s, c.size); err != nil {
			return err
		}
		s.proc.pause()
	}
	c.results = map[string]map[string][]fioResult{}
	for _, r := range c.rows {
		c.results[r.name] = map[string][]fioResult{}
	}
	for round := range rounds {
		for i := range c.rows {
			for k := range c.servers {
				s := c.servers[(k+round+i)%len(c.servers)]
				if err := c.one(ctx, round, &c.rows[i], s); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// one is one measurement.
func (c *comparison) one(ctx context.Context, round int, r *row, s *server) error {
	if r.flush && !s.flushes {
		return nil
	}
	if err := syncFS(c.bench.dir); err != nil {
		return err
	}
	s.proc.resume()
	defer s.proc.pause()
	result, err := fio(ctx, s, r.write, r.fioArgs(c.size, c.runtime)...)
	if err != nil {
		return fmt.Errorf("row %s: %w", r.name, err)
	}
	f := r.figures[0]
	fmt.Fprintf(os.Stderr, "round %d  %-13s %-9s %10.0f %-5s  CPU for each: %6.1f us of server, %5.1f us of fio\n",
		round+1, r.name, s.name, f.value(result), f.unit, result.ServerCPU, result.ClientCPU)
	c.results[r.name][s.name] = append(c.results[r.name][s.name], result)
	return nil
}
