package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/server/admin"
)

// recoveryTest kills lsad under load and measures how soon it serves again.
type recoveryTest struct {
	dir, lsad string
	bytes     config.Size
	again     config.Size
	size      config.Size
	kills     int
	limit     time.Duration
	cold      bool
}

func newRecovery() *cobra.Command {
	t := &recoveryTest{bytes: 20 * config.GiB, again: config.GiB, size: 16 * config.GiB}
	cmd := &cobra.Command{
		Use:   "recovery",
		Short: "Measure how long lsad takes to serve again after kill -9",
		Long: `Writes a mix of 4 KiB, 64 KiB and 1 MiB at random until enough was written, kills lsad with SIGKILL under that load,
and starts it again; then writes a little more and kills it again, so that it dies at different times since its last
checkpoint. Takes half as much disk again as the volume, which is given back at the end.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.Var(&t.bytes, "bytes", "how much to write before the first kill")
	f.Var(&t.again, "again", "how much to write before each further one")
	f.Var(&t.size, "size", "size of the volume")
	f.IntVar(&t.kills, "kills", 3, "how often to kill")
	f.DurationVar(&t.limit, "limit", 3*time.Second, "how long a recovery may take")
	f.BoolVar(&t.cold, "cold", false, "drop what the page cache has of the devices first, as a reboot does")
	f.StringVar(&t.dir, "dir", "", "directory for the temporary files (default $TMPDIR or /tmp)")
	f.StringVar(&t.lsad, "lsad", "", "lsad program to measure (default: build it)")
	f.SortFlags = false
	return cmd
}

func (t *recoveryTest) run(ctx context.Context, out io.Writer) (err error) {
	b, err := newBench(ctx, t.dir, t.lsad)
	if err != nil {
		return err
	}
	defer b.close()
	flags, err := b.deviceFlags(int64(t.size) * 3 / 2)
	if err != nil {
		return err
	}
	flags = append(flags, "--volume="+exportName+":"+t.size.String())
	s, err := b.startLsad(ctx, "lsad", b.lsad, flags...)
	if err != nil {
		return err
	}
	defer func() {
		if s != nil { // it started again
			err = errors.Join(err, s.proc.stop())
		}
	}()
	goal, slowest := t.bytes, time.Duration(0)
	for n := range t.kills {
		written, behind, err := t.loadAndKill(ctx, s, int64(goal))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "kill %d: after %.1f GiB written, %d MiB of log since the last checkpoint\n", n+1, written/(1<<30), int64(behind)>>20)
		if t.cold {
			if err := b.dropDevices(); err != nil {
				return err
			}
		}
		begin := time.Now()
		if s, err = b.startLsad(ctx, "lsad", b.lsad, flags...); err != nil {
			return err
		}
		took := time.Since(begin)
		slowest, goal = max(slowest, took), t.again
		status, err := s.admin().Status(ctx)
		if err != nil {
			return err
		}
		printRecovery(out, took, &status.Recovery)
	}
	word := "met"
	if slowest > t.limit {
		word = "not met"
	}
	fmt.Fprintf(out, "slowest %.2fs; limit %v: %s\n", slowest.Seconds(), t.limit, word)
	return nil
}

func printRecovery(out io.Writer, took time.Duration, r *admin.Recovery) {
	fmt.Fprintf(out, "        serving again after %.2fs; recovery took %.2fs, scanned %d MiB of log, replayed %d records\n",
		took.Seconds(), r.Seconds, r.Bytes>>20, r.Records)
	for _, step := range r.Steps {
		fmt.Fprintf(out, "        %6.3fs  %s: %s\n", step.Seconds, step.Name, step.Detail)
	}
}

// loadAndKill writes until lsad has so many bytes in its log since it started, then kills it in the middle.
func (t *recoveryTest) loadAndKill(ctx context.Context, s *server, goal int64) (written, behind float64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		defer close(done)
		_, err := fio(ctx, s, true, "--rw=randwrite", "--bssplit=4k/60:64k/30:1m/10", "--iodepth=32",
			"--size="+strconv.FormatInt(int64(t.size), 10), "--time_based", "--runtime=24h", "--randrepeat=0")
		done <- err
	}()
	defer func() { // fio fails as soon as its server is gone
		cancel()
		for range done {
		}
	}()
	for written < float64(goal) {
		select {
		case err := <-done:
			return 0, 0, fmt.Errorf("the load ended early: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
		if written, err = s.metric(ctx, `lsad_log_bytes_total{kind="user"}`); err != nil {
			return 0, 0, err
		}
	}
	if behind, err = s.metric(ctx, "lsad_log_behind_checkpoint_bytes"); err != nil {
		return 0, 0, err
	}
	s.proc.kill()
	return written, behind, nil
}

// dropDevices writes the device files back and drops them from the page cache.
func (b *bench) dropDevices() error {
	if err := syncFS(b.dir); err != nil {
		return err
	}
	names, err := filepath.Glob(b.path("device*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		f.Close()
		if err != nil {
			return fmt.Errorf("drop %s from the page cache: %w", name, err)
		}
	}
	return nil
}
