package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lsad/internal/config"
)

// memoryTest writes single blocks all over a large volume and watches lsad's memory.
type memoryTest struct {
	dir, lsad string
	size      config.Size
	limit     config.Size
	writes    int64
	heap      int
}

func newMemory() *cobra.Command {
	m := &memoryTest{size: config.TiB, limit: 400 * config.MiB}
	cmd := &cobra.Command{
		Use:   "memory",
		Short: "Watch lsad's memory while 4 KiB writes are spread over a large volume",
		Long: `Writes single blocks at random all over a volume, with everything at its defaults, and reports the resident memory
of lsad meanwhile and at the end. Five million writes take some 25 GiB of disk, which are given back at the end.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return m.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.Var(&m.size, "size", "size of the volume")
	f.Int64Var(&m.writes, "writes", 5_000_000, "how many blocks to write")
	f.Var(&m.limit, "limit", "the most that may be resident")
	f.IntVar(&m.heap, "heap", 0, "print so many functions of the heap profile at the end; without it 20 if the limit is passed")
	f.StringVar(&m.dir, "dir", "", "directory for the temporary files (default $TMPDIR or /tmp)")
	f.StringVar(&m.lsad, "lsad", "", "lsad program to measure (default: build it)")
	f.SortFlags = false
	return cmd
}

func (m *memoryTest) run(ctx context.Context, out io.Writer) (err error) {
	b, err := newBench(ctx, m.dir, m.lsad)
	if err != nil {
		return err
	}
	defer b.close()
	// A block takes at most an eighth more in the log; a tenth stays free, so that nothing is collected.
	const block = 4096
	devices, err := b.deviceFlags(m.writes*block*9/8*11/10 + int64(config.GiB))
	if err != nil {
		return err
	}
	s, err := b.startLsad(ctx, "lsad", b.lsad, append(devices, "--volume="+exportName+":"+m.size.String())...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.proc.stop()) }()
	fmt.Fprintln(out, "blocks written  a second  resident  of that anonymous  highest")
	before, err := s.resident()
	if err != nil {
		return err
	}
	m.line(out, 0, 0, before)
	result, err := m.load(ctx, out, s)
	if err != nil {
		return err
	}
	end, err := s.resident()
	if err != nil {
		return err
	}
	m.line(out, result.IOs, result.IOPS, end)
	return m.verdict(ctx, out, b, s, end)
}

func (m *memoryTest) line(out io.Writer, blocks int64, rate float64, r resident) {
	const mib = 1 << 20
	fmt.Fprintf(out, "%14d  %8.0f  %4d MiB  %14d MiB  %3d MiB\n", blocks, rate, r.now/mib, r.anonymous/mib, r.highest/mib)
}

// load runs fio and prints a line every few seconds.
func (m *memoryTest) load(ctx context.Context, out io.Writer, s *server) (fioResult, error) {
	const jobs = 4
	type outcome struct {
		result fioResult
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		result, err := fio(ctx, s, true, "--rw=randwrite", "--bs=4k", "--iodepth=32", "--size="+strconv.FormatInt(int64(m.size), 10),
			fmt.Sprintf("--numjobs=%d", jobs), fmt.Sprintf("--number_ios=%d", (m.writes+jobs-1)/jobs))
		done <- outcome{result, err}
	}()
	const every = 5 * time.Second
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for last := int64(0); ; {
		select {
		case o := <-done:
			return o.result, o.err
		case <-ticker.C:
			status, err := s.admin().Status(ctx)
			if err != nil {
				continue // fio tells if it is serious
			}
			blocks := status.UsedBytes / config.BlockSize
			if r, err := s.resident(); err == nil {
				m.line(out, blocks, float64(blocks-last)/every.Seconds(), r)
			}
			last = blocks
		}
	}
}

// verdict compares with the limit, and shows who holds memory.
func (m *memoryTest) verdict(ctx context.Context, out io.Writer, b *bench, s *server, r resident) error {
	word := "met"
	if r.highest > int64(m.limit) {
		word = "not met"
	}
	const mib = 1 << 20
	fmt.Fprintf(out, "\nhighest resident memory %d MiB; limit %d MiB: %s\n", r.highest/mib, int64(m.limit)/mib, word)
	if m.heap == 0 && word != "met" {
		m.heap = 20
	}
	if m.heap == 0 {
		return nil
	}
	file := b.path("heap.pprof")
	if err := s.save(ctx, "/debug/pprof/heap", file); err != nil {
		return err
	}
	return b.printProfile(ctx, out, file, m.heap, "-sample_index=inuse_space")
}

// resident is the memory of a process that is in RAM, in bytes.
type resident struct{ now, anonymous, highest int64 }

func (s *server) resident() (r resident, err error) {
	path := fmt.Sprintf("/proc/%d/status", s.proc.pid())
	for name, to := range map[string]*int64{"VmRSS": &r.now, "RssAnon": &r.anonymous, "VmHWM": &r.highest} {
		kib, err := strconv.ParseInt(strings.TrimSuffix(field(path, name), " kB"), 10, 64)
		if err != nil {
			return r, errors.Join(fmt.Errorf("%s: %s: %w", path, name, err), s.proc.exited(), os.ErrInvalid)
		}
		*to = kib << 10
	}
	return r, nil
}
