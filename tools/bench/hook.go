package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/internal/direct"
	"lsad/internal/nbdclient"
	"lsad/kvmhook/localsource"
	"lsad/server/admin"
	"lsad/tools/bench/membench"
)

// hookTest measures the page server.
type hookTest struct {
	dir, lsad string
	ram       config.Size
	touches   int
	rounds    int
	pace      time.Duration
}

func newHookBench() *cobra.Command {
	t := &hookTest{ram: config.GiB}
	cmd := &cobra.Command{
		Use:   "hook",
		Short: "Measure the page server beside a bare handler that copies from a mapped file",
		Long: `Makes an image of random memory, on an lsad of its own, and has a VMM touch it: single pages at random, all of it in
order, and a part of it with and without a recorded working set. The bare handler does nothing but copy chunks of the
same file, which it has mapped. Needs root for userfaultfd, and for a row with 2 MiB pages as many of them as the image
has (sysctl vm.nr_hugepages, which it sets and sets back).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.Var(&t.ram, "ram", "size of the image")
	f.IntVar(&t.touches, "touches", 20000, "pages to touch where single faults are measured")
	f.IntVar(&t.rounds, "rounds", 3, "how often to measure everything")
	f.DurationVar(&t.pace, "pace", 5*time.Microsecond, "the guest's work between two touches, for the working set")
	f.StringVar(&t.dir, "dir", "", "directory for the temporary files (default $TMPDIR or /tmp)")
	f.StringVar(&t.lsad, "lsad", "", "lsad program to measure (default: build it)")
	f.SortFlags = false
	return cmd
}

func (t *hookTest) run(ctx context.Context, out io.Writer) (err error) {
	b, err := newBench(ctx, t.dir, t.lsad)
	if err != nil {
		return err
	}
	defer b.close()
	flags, err := b.deviceFlags(2 * int64(t.ram))
	if err != nil {
		return err
	}
	s, err := b.startLsad(ctx, "lsad", b.lsad, flags...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.proc.stop()) }()
	setup := &membench.Setup{
		Dir: b.dir, File: b.path("memory"), Size: int64(t.ram),
		Target: nbdclient.Target{Network: "unix", Address: s.socket, Export: "memory"},
		Locate: func(ctx context.Context, off int64, blocks int) (localsource.Places, error) {
			p, err := s.admin().Places(ctx, "memory", off, blocks)
			return localsource.Places{
				Answer: direct.Answer{Uses: p.Uses, Base: p.Base, Devices: p.Devices, Rows: p.Rows}, Export: p.Export,
			}, err
		},
	}
	if err := writeNoise(setup.File, setup.Size); err != nil {
		return err
	}
	if _, err := s.admin().ImportImage(ctx, admin.ImportImage{Name: "memory", File: setup.File, Paused: true}, nil); err != nil {
		return err
	}
	defer hugePages(int(t.ram / (2 * config.MiB)))()
	for round := range t.rounds {
		if err := t.round(ctx, out, setup, round); err != nil {
			return err
		}
	}
	return nil
}

func (t *hookTest) round(ctx context.Context, out io.Writer, setup *membench.Setup, round int) error {
	print := func(title string, results []membench.Result, err error) error {
		fmt.Fprintf(out, "\n%s, round %d\n", title, round+1)
		for _, r := range results {
			fmt.Fprintln(out, "  "+r.Line())
		}
		return err
	}
	results, err := setup.Faults(ctx, t.touches, uint64(round+1))
	if err := print("single faults, 4 KiB pages at random, no fill", results, err); err != nil {
		return err
	}
	results, err = setup.Sweep(ctx)
	if err := print(fmt.Sprintf("all of %v in order", t.ram), results, err); err != nil {
		return err
	}
	results, err = setup.Restores(ctx, 0.1, t.pace)
	return print("a tenth of it, in runs of 64 KiB at random", results, err)
}

// writeNoise makes a file that neither has zeros nor can be compressed.
func writeNoise(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	noise := rand.NewChaCha8([32]byte{1})
	p := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(p)) {
		noise.Read(p) // cannot fail
		if _, err := f.Write(p[:min(int64(len(p)), size-off)]); err != nil {
			return err
		}
	}
	return f.Sync()
}

// hugePages has the kernel set pages of 2 MiB aside, as far as it can, and returns what undoes that.
func hugePages(n int) (undo func()) {
	path := filepath.Join("/proc/sys/vm", "nr_hugepages")
	old, err := os.ReadFile(path)
	if err != nil {
		return func() {}
	}
	unix.Sync() // memory that waits to be written cannot be moved
	os.WriteFile(path, []byte(fmt.Sprint(n)), 0)
	return func() { os.WriteFile(path, old, 0) }
}
