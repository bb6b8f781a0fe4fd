package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"lsad/internal/config"
)

// profiler takes a profile of lsad during one row.
type profiler struct {
	dir, lsad string
	size      config.Size
	warm      config.Size
	runtime   time.Duration
	kind      string
	out       string
	count     int
	cum       bool
}

func newProfile() *cobra.Command {
	p := &profiler{size: config.GiB, warm: 6 * config.GiB}
	cmd := &cobra.Command{
		Use:     "profile ROW",
		Short:   "Profile lsad during one row of the comparison: " + rowNames(),
		Example: `  go run ./tools/bench profile randwrite32 --out /tmp/cpu.pprof`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen, err := chooseRows(args)
			if err != nil {
				return err
			}
			return p.run(cmd.Context(), cmd.OutOrStdout(), &chosen[0])
		},
	}
	f := cmd.Flags()
	f.DurationVar(&p.runtime, "runtime", 5*time.Second, "how long to profile, in whole seconds")
	f.Var(&p.size, "size", "size of the export")
	f.Var(&p.warm, "warm", "memory to touch before")
	f.StringVar(&p.dir, "dir", "", "directory for the temporary files (default $TMPDIR or /tmp)")
	f.StringVar(&p.lsad, "lsad", "", "lsad program to profile (default: build it)")
	f.StringVar(&p.kind, "kind", "cpu", "kind of profile: cpu or allocs")
	f.StringVar(&p.out, "out", "", "keep the profile in this file")
	f.IntVar(&p.count, "top", 45, "how many functions to print")
	f.BoolVar(&p.cum, "cum", false, "sort by the time that functions and what they call take")
	return cmd
}

func (p *profiler) run(ctx context.Context, out io.Writer, r *row) (err error) {
	b, err := newBench(ctx, p.dir, p.lsad)
	if err != nil {
		return err
	}
	defer b.close()
	if _, err := warmMemory(int64(p.warm)); err != nil {
		return err
	}
	s, err := b.startLsad(ctx, "lsad", b.lsad, "--volume="+exportName+":"+p.size.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.proc.stop()) }()
	if err := prefill(ctx, s, int64(p.size)); err != nil {
		return err
	}
	file := p.out
	if file == "" {
		file = b.path("profile.pprof")
	}
	result, err := p.record(ctx, s, r, file)
	if err != nil {
		return err
	}
	f := r.figures[0]
	fmt.Fprintf(out, "%s: %.0f %s\n", r.title, f.value(result), f.unit)
	return p.print(ctx, out, b, file)
}

// record takes the profile while fio runs, which goes on for a second longer.
func (p *profiler) record(ctx context.Context, s *server, r *row, file string) (fioResult, error) {
	type outcome struct {
		result fioResult
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		result, err := fio(ctx, s, r.write, r.fioArgs(int64(p.size), p.runtime+time.Second)...)
		done <- outcome{result, err}
	}()
	name := map[string]string{"cpu": "profile", "allocs": "allocs"}[p.kind]
	path := fmt.Sprintf("/debug/pprof/%s?seconds=%d", name, max(1, int(p.runtime.Seconds())))
	err := s.save(ctx, path, file)
	load := <-done
	return load.result, errors.Join(err, load.err)
}

func (p *profiler) print(ctx context.Context, out io.Writer, b *bench, file string) error {
	var args []string
	if p.cum {
		args = append(args, "-cum")
	}
	if p.kind == "allocs" {
		args = append(args, "-sample_index=alloc_space")
	}
	return b.printProfile(ctx, out, file, p.count, args...)
}

// printProfile prints the top functions of a profile.
func (b *bench) printProfile(ctx context.Context, out io.Writer, file string, count int, args ...string) error {
	args = append([]string{"tool", "pprof", "-top", fmt.Sprintf("-nodecount=%d", count)}, args...)
	text, err := runProgram(ctx, "go", append(args, b.lsad, file)...)
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}
