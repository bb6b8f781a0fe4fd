package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
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
	f.StringVar(&p.out, "out", "", "keep the profile in this file, and the program beside it")
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
	url := fmt.Sprintf("http://lsad/debug/pprof/%s?seconds=%d", map[string]string{"cpu": "profile", "allocs": "allocs"}[p.kind], max(1, int(p.runtime.Seconds())))
	err := download(ctx, s.adminSocket(), url, file)
	load := <-done
	return load.result, errors.Join(err, load.err)
}

func (p *profiler) print(ctx context.Context, out io.Writer, b *bench, file string) error {
	args := []string{"tool", "pprof", "-top", fmt.Sprintf("-nodecount=%d", p.count)}
	if p.cum {
		args = append(args, "-cum")
	}
	if p.kind == "allocs" {
		args = append(args, "-sample_index=alloc_space")
	}
	text, err := runProgram(ctx, "go", append(args, b.lsad, file)...)
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// download saves what the admin socket answers to a file.
func download(ctx context.Context, socket, url, file string) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: the server answered %s", resp.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, resp.Body); err != nil {
		f.Close()
		return fmt.Errorf("profile: %w", err)
	}
	return f.Close()
}
