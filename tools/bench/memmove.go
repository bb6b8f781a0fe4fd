package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/memsvc/qemu/qmp"
	"lsad/tools/guest/memguest"
)

// moveTest moves a running VM from one QEMU to the next.
type moveTest struct {
	dir, lsad   string
	ram         config.Size
	used, freed config.Size
	moves, busy int
	limit       time.Duration
}

func newMove() *cobra.Command {
	t := &moveTest{ram: 512 * config.MiB, used: 40 * config.MiB, freed: 300 * config.MiB}
	cmd := &cobra.Command{
		Use:   "move",
		Short: "Measure how long a VM stands still when it is moved",
		Long: `Boots a guest under QEMU whose RAM is a file in memory, and moves it from one QEMU to the next by lsad image migrate.
Prints what the guest waited for in each move, from the STOP of the one to the RESUME of the other by their own clocks.
With --busy as many processes as that compute meanwhile.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.Var(&t.ram, "ram", "RAM of the guest")
	f.Var(&t.used, "used", "memory that the guest fills and keeps")
	f.Var(&t.freed, "freed", "memory that it fills and frees")
	f.IntVar(&t.moves, "moves", 9, "how often to move it")
	f.IntVar(&t.busy, "busy", 0, "processes that compute meanwhile")
	f.DurationVar(&t.limit, "limit", 50*time.Millisecond, "how long it may stand still")
	f.StringVar(&t.dir, "dir", "", "directory for the temporary files (default $TMPDIR or /tmp)")
	f.StringVar(&t.lsad, "lsad", "", "lsad program to measure (default: build it)")
	f.SortFlags = false
	return cmd
}

func (t *moveTest) run(ctx context.Context, out io.Writer) (err error) {
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
	kit, err := memguest.Make(ctx, b.dir)
	if err != nil {
		return err
	}
	const mib = int(config.MiB)
	o := memguest.Options{MemoryMiB: int(t.ram) / mib, UsedMiB: int(t.used) / mib, FreedMiB: int(t.freed) / mib}
	o.RAMFile = filepath.Join(memory, "ram0")
	vm, err := kit.Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { vm.Close() }()
	if err := errors.Join(vm.WaitLine(ctx, "ready"), vm.WaitRounds(ctx, 1)); err != nil {
		return err
	}
	defer computing(ctx, t.busy)()
	fmt.Fprintf(out, "a guest of %v, %d busy processes; milliseconds\n", t.ram, t.busy)
	fmt.Fprintln(out, "        stood still  source saves  passed on  source done  destination loads  resumes  first page asked for")
	o.Incoming = true
	var all []float64
	for n := range t.moves {
		o.RAMFile = filepath.Join(memory, fmt.Sprintf("ram%d", n+1))
		next, err := kit.Start(ctx, o)
		if err != nil {
			return err
		}
		stood, err := move(ctx, out, b.lsad, filepath.Join(memory, fmt.Sprintf("ram%d", n)), vm, next)
		vm.Close()
		vm = next
		if err == nil {
			err = errors.Join(vm.WaitRounds(ctx, 1), os.Remove(filepath.Join(memory, fmt.Sprintf("ram%d", n))))
		}
		if err != nil {
			return fmt.Errorf("move %d: %w", n+1, err)
		}
		all = append(all, stood.Seconds()*1e3)
	}
	s := summarize(all)
	fmt.Fprintf(out, "from stop to running: median %.1f ms, longest %.1f ms\n", s.Median, s.Max)
	verdict(out, "median, of the limit", s.Median/1e3/t.limit.Seconds(), 1, s.Median/1e3 <= t.limit.Seconds())
	return nil
}

// move moves the VM and prints a line; it returns the time from STOP to RESUME.
func move(ctx context.Context, out io.Writer, lsad, ram string, from, to *memguest.VM) (time.Duration, error) {
	text, err := runProgram(ctx, lsad, "image", "migrate", "--json", "--ram", ram, "--qmp", from.Monitor, "--to-qmp", to.Monitor)
	if err != nil {
		return 0, err
	}
	var r struct {
		Stood struct {
			Saved     float64 `json:"saved_seconds"`
			Sent      float64 `json:"sent_seconds"`
			Confirmed float64 `json:"confirmed_seconds"`
			Loaded    float64 `json:"loaded_seconds"`
			Asked     float64 `json:"asked_seconds"`
		} `json:"stood"`
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return 0, err
	}
	stop, err := event(ctx, from, "STOP")
	if err != nil {
		return 0, err
	}
	resume, err := event(ctx, to, "RESUME")
	if err != nil {
		return 0, err
	}
	stood, s := resume.Sub(stop), r.Stood
	fmt.Fprintf(out, "%19.1f%14.1f%11.1f%13.1f%19.1f%9.1f%22.1f\n", stood.Seconds()*1e3, s.Saved*1e3, (s.Sent-s.Saved)*1e3,
		(s.Confirmed-s.Sent)*1e3, (s.Loaded-s.Confirmed)*1e3, (stood.Seconds()-s.Loaded)*1e3, s.Asked*1e3)
	return stood, nil
}

// event is when the newest event of a name was, by QEMU's clock.
func event(ctx context.Context, vm *memguest.VM, name string) (time.Time, error) {
	if _, err := vm.QMP.Status(ctx); err != nil { // which brings in what has happened
		return time.Time{}, err
	}
	if e, ok := vm.QMP.Newest(name); ok {
		return e.Time, nil
	}
	e, err := vm.QMP.Wait(ctx, func(e qmp.Event) bool { return e.Name == name })
	return e.Time, err
}

// computing starts processes that compute, until the function that it returns is called.
func computing(ctx context.Context, n int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all []*exec.Cmd
	for range n {
		cmd := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if cmd.Start() == nil { // one less is as good
			all = append(all, cmd)
			// If the benchmark runs at another priority, so do its QEMUs, and these do not.
			_ = unix.Setpriority(unix.PRIO_PROCESS, cmd.Process.Pid, 0)
		}
	}
	return func() {
		cancel()
		for _, cmd := range all {
			_ = cmd.Wait() // it was killed
		}
	}
}
