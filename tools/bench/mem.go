package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/memsvc/qemu/qmp"
	"lsad/server/admin"
	"lsad/tools/guest/memguest"
)

// memTest saves the memory of a VM in several ways.
type memTest struct {
	dir, lsad   string
	ram         config.Size
	used, freed config.Size
	rounds      int
}

func newMem() *cobra.Command {
	t := &memTest{ram: config.GiB, used: 200 * config.MiB, freed: 600 * config.MiB}
	cmd := &cobra.Command{
		Use:   "mem",
		Short: "Save a VM's memory with lsad, with QEMU's own migration and with cp",
		Long: `Boots a guest under QEMU whose RAM is a file in memory, has it use some and free more, stops it, and imports its
memory into lsad, with and without its free pages, taking turns with cp of the same file. Then QEMU itself saves the
same guest into a file, and into lsad, from where it is restored, by demand alone and with the rest in the background.
All files but the RAM are in one directory. Needs twice as much memory as the guest has, in /dev/shm.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.Var(&t.ram, "ram", "RAM of the guest")
	f.Var(&t.used, "used", "memory that the guest fills and keeps")
	f.Var(&t.freed, "freed", "memory that it fills and frees")
	f.IntVar(&t.rounds, "rounds", 3, "how often to save it")
	f.StringVar(&t.dir, "dir", "", "directory for the temporary files (default $TMPDIR or /tmp)")
	f.StringVar(&t.lsad, "lsad", "", "lsad program to measure (default: build it)")
	f.SortFlags = false
	cmd.AddCommand(newMove())
	return cmd
}

func (t *memTest) run(ctx context.Context, out io.Writer) (err error) {
	b, err := newBench(ctx, t.dir, t.lsad)
	if err != nil {
		return err
	}
	defer b.close()
	memory, err := os.MkdirTemp("/dev/shm", "lsad-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(memory)
	flags, err := b.deviceFlags(4 * int64(t.ram))
	if err != nil {
		return err
	}
	kit, err := memguest.Make(ctx, b.dir)
	if err != nil {
		return err
	}
	const mib = int(config.MiB)
	options := memguest.Options{
		MemoryMiB: int(t.ram) / mib, UsedMiB: int(t.used) / mib, FreedMiB: int(t.freed) / mib, RAMFile: filepath.Join(memory, "ram"),
	}
	vm, err := bootAndStop(ctx, kit, options)
	if err != nil {
		return err
	}
	defer vm.Close()
	s, err := b.startLsad(ctx, "lsad", b.lsad, flags...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.proc.stop()) }()
	saves := &saving{b: b, s: s, vm: vm, ram: options.RAMFile, out: out}
	if err := saves.all(ctx, t.rounds); err != nil {
		return err
	}
	return (&restoring{saving: saves, kit: kit, options: options, dir: memory}).all(ctx)
}

// bootAndStop starts the guest, waits until it has used and freed its memory and checked what it kept, and stops it.
func bootAndStop(ctx context.Context, kit *memguest.Kit, o memguest.Options) (*memguest.VM, error) {
	vm, err := kit.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	err = vm.WaitLine(ctx, "ready")
	if err == nil {
		err = vm.WaitRounds(ctx, 1)
	}
	if err == nil {
		err = vm.QMP.Execute(ctx, "stop", nil, nil)
	}
	if err != nil {
		vm.Close()
		return nil, err
	}
	return vm, nil
}

// saving is the stopped VM, and the server that saves it.
type saving struct {
	b   *bench
	s   *server
	vm  *memguest.VM
	ram string // its file
	out io.Writer
}

// saved is one way to save the memory, done once or more.
type saved struct {
	name    string
	seconds []float64
	bytes   int64 // that it takes
}

// all saves in all ways, by turns, and prints what came of it.
func (m *saving) all(ctx context.Context, rounds int) error {
	info, err := os.Stat(m.ram)
	if err != nil {
		return err
	}
	var image admin.Image
	ways := []struct {
		saved
		save func(ctx context.Context) (int64, error)
	}{
		{saved{name: "cp"}, m.copy},
		{saved{name: "cp, then sync"}, func(ctx context.Context) (int64, error) {
			if _, err := m.copy(ctx); err != nil {
				return 0, err
			}
			return synced(m.b.path("copy"))
		}},
		{saved{name: "lsad image import"}, func(ctx context.Context) (n int64, err error) {
			image, n, err = m.importImage(ctx, false)
			return n, err
		}},
		{saved{name: "lsad image import --keep-free"}, func(ctx context.Context) (int64, error) {
			_, n, err := m.importImage(ctx, true)
			return n, err
		}},
	}
	for range rounds {
		for i := range ways {
			if err := syncFS(m.b.dir); err != nil {
				return err
			}
			begin := time.Now()
			n, err := ways[i].save(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", ways[i].name, err)
			}
			ways[i].bytes, ways[i].seconds = n, append(ways[i].seconds, time.Since(begin).Seconds())
			if err := m.forget(ctx); err != nil {
				return err
			}
		}
	}
	own := saved{name: "QEMU migrate, then sync"}
	begin := time.Now()
	if own.bytes, err = m.migrate(ctx); err != nil {
		return fmt.Errorf("%s: %w", own.name, err)
	}
	own.seconds = []float64{time.Since(begin).Seconds()}
	all := []saved{own}
	for i := range ways {
		all = append(all, ways[i].saved)
	}
	m.print(info.Size(), &image, all)
	return nil
}

func (m *saving) copy(ctx context.Context) (int64, error) {
	file := m.b.path("copy")
	if _, err := runProgram(ctx, "cp", m.ram, file); err != nil {
		return 0, err
	}
	return taken(file)
}

// taken is what a file takes on disk.
func taken(file string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
}

// synced makes a file durable and returns what it takes on disk.
func synced(file string) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return 0, err
	}
	return taken(file)
}

// imageName is that of the image and of nothing else.
const imageName = "saved"

func (m *saving) importImage(ctx context.Context, keepFree bool) (admin.Image, int64, error) {
	q := admin.ImportImage{Name: imageName, File: m.ram, QMP: m.vm.Monitor, KeepFree: keepFree}
	image, err := m.s.admin().ImportImage(ctx, q, func(admin.JobProgress) {})
	return image, image.StoredBytes, err
}

// forget removes what was saved, so that each round begins with nothing.
func (m *saving) forget(ctx context.Context) error {
	if err := os.Remove(m.b.path("copy")); err != nil && !os.IsNotExist(err) {
		return err
	}
	images, err := m.s.admin().Images(ctx)
	if err != nil || len(images) == 0 {
		return err
	}
	return m.s.admin().DeleteImage(ctx, imageName)
}

// migrationFile is what QEMU saves the guest into.
const migrationFile = "migration"

// migrate has QEMU save the guest.
func (m *saving) migrate(ctx context.Context) (int64, error) {
	file := m.b.path(migrationFile)
	if err := m.vm.Migrate(ctx, "exec:cat > "+file); err != nil {
		return 0, err
	}
	if err := awaitMigration(ctx, m.vm.QMP); err != nil {
		return 0, err
	}
	return synced(file)
}

// awaitMigration waits until QEMU has sent everything.
func awaitMigration(ctx context.Context, monitor *qmp.Client) error {
	for {
		var is struct {
			Status string `json:"status"`
			Error  string `json:"error-desc"`
		}
		if err := monitor.Execute(ctx, "query-migrate", nil, &is); err != nil {
			return err
		}
		switch is.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("the migration has %s: %s", is.Status, is.Error)
		}
		time.Sleep(time.Millisecond)
	}
}

func (m *saving) print(size int64, image *admin.Image, all []saved) {
	const mib = 1 << 20
	p := image.Pages
	inUse := float64(p.InUse * image.PageBytes)
	fmt.Fprintf(m.out, "guest of %d MiB: %d pages in use, %d free, %d zero; %s\n", size/mib, p.InUse, p.Free, p.Zero, image.Why)
	for _, step := range image.Steps {
		fmt.Fprintf(m.out, "  %-18s %6.3fs\n", step.Name, step.Seconds)
	}
	fmt.Fprintf(m.out, "\n%-30s  %8s  %8s  %14s  %8s\n", "", "seconds", "MiB/s", "MiB that it is", "to in-use")
	for _, w := range all {
		seconds := summarize(w.seconds).Median
		fmt.Fprintf(m.out, "%-30s  %8.2f  %8.0f  %14.1f  %8.3f\n",
			w.name, seconds, float64(size)/mib/seconds, float64(w.bytes)/mib, float64(w.bytes)/inUse)
	}
	fmt.Fprintln(m.out)
	share := float64(image.StoredBytes) / inUse
	verdict(m.out, "the image takes of its pages in use", share, 1.05, share <= 1.05)
	for _, w := range all[3:] { // a copy that may be lost with the power is compared, too
		for _, cp := range all[1:3] {
			speed := summarize(cp.seconds).Median / summarize(w.seconds).Median
			verdict(m.out, w.name+": speed of "+cp.name, speed, 0.5, speed >= 0.5)
		}
	}
}

// verdict says whether a figure is within its limit.
func verdict(out io.Writer, what string, value, limit float64, ok bool) {
	word := "met"
	if !ok {
		word = "not met"
	}
	fmt.Fprintf(out, "%s %.3fx; limit %.2fx: %s\n", what, value, limit, word)
}
