package memguest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"lsad/memsvc/qemu/qmp"
)

// Options say what a guest has.
type Options struct {
	MemoryMiB int
	UsedMiB   int    // memory that the guest fills and checks
	FreedMiB  int    // memory that it fills and gives back
	RAMFile   string // if not empty, the RAM is this file, shared; it is made
	RAMName   string // of the RAM block if there is no file but a backend is wanted all the same
	Incoming  bool   // wait for a guest to come in: see VM.Receive
	NetNS     string // network namespace to run in
	Args      []string
}

// VM is one QEMU.
type VM struct {
	QMP     *qmp.Client
	Monitor string // a second monitor's socket, for the program under test
	cmd     *exec.Cmd
	dir     string
	wg      sync.WaitGroup

	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed when there are more lines
	ended bool
}

// Start starts a QEMU. The caller closes it.
func (k *Kit) Start(ctx context.Context, o Options) (*VM, error) {
	dir, err := os.MkdirTemp("", "lsad-memguest-")
	if err != nil {
		return nil, err
	}
	vm := &VM{dir: dir, Monitor: filepath.Join(dir, "monitor"), more: make(chan struct{})}
	own := filepath.Join(dir, "own")
	args := append(k.args(o), "-qmp", "unix:"+own+",server=on,wait=off", "-qmp", "unix:"+vm.Monitor+",server=on,wait=off")
	if o.NetNS != "" {
		args = append([]string{"netns", "exec", o.NetNS, "qemu-system-x86_64"}, args...)
		vm.cmd = exec.Command("ip", args...)
	} else {
		vm.cmd = exec.Command("qemu-system-x86_64", args...)
	}
	if err := vm.start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if vm.QMP, err = qmp.Dial(ctx, "unix", own); err == nil {
			return vm, nil
		}
		if time.Now().After(deadline) || vm.gone() || ctx.Err() != nil {
			vm.Close()
			return nil, fmt.Errorf("memguest: %w; its output: %s", err, vm.Output())
		}
	}
}

// cpu has no cmpxchg16b. Right behind that instruction a guest crashed, once in 26 runs of TestMigrateResumed, with
// the low half of RAX in its flags. No memory, however wrong, brings that about; QEMU's emulator (7.2) has to.
const cpu = "max,-cx16"

func (k *Kit) args(o Options) []string {
	machine := "pc"
	args := []string{
		"-accel", "tcg", "-cpu", cpu, "-m", strconv.Itoa(o.MemoryMiB), "-smp", "1",
		"-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio",
		"-kernel", k.Kernel, "-initrd", k.Initramfs,
		"-append", fmt.Sprintf("console=ttyS0 panic=-1 quiet mitigations=off no_timer_check used=%d freed=%d", o.UsedMiB, o.FreedMiB),
	}
	switch size := fmt.Sprintf("%dM", o.MemoryMiB); {
	case o.RAMFile != "":
		args = append(args, "-object", "memory-backend-file,id=mem0,mem-path="+o.RAMFile+",size="+size+",share=on")
		machine += ",memory-backend=mem0"
	case o.RAMName != "":
		args = append(args, "-object", "memory-backend-ram,id="+o.RAMName+",size="+size)
		machine += ",memory-backend=" + o.RAMName
	}
	args = append(args, "-machine", machine)
	if o.Incoming {
		args = append(args, "-incoming", "defer")
	}
	return append(args, o.Args...)
}

func (vm *VM) start() error {
	out, err := vm.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	vm.cmd.Stderr = vm.cmd.Stdout
	// The guest must not outlive a test that is killed.
	vm.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := vm.cmd.Start(); err != nil {
		return err
	}
	vm.wg.Go(func() { vm.read(out) })
	return nil
}

// maxLines bounds what is kept of a guest's output.
const maxLines = 1 << 16

func (vm *VM) read(out io.Reader) {
	scan := bufio.NewScanner(out)
	for scan.Scan() {
		vm.mu.Lock()
		if len(vm.lines) < maxLines {
			vm.lines = append(vm.lines, strings.TrimSpace(scan.Text()))
		}
		close(vm.more)
		vm.more = make(chan struct{})
		vm.mu.Unlock()
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.ended = true
	close(vm.more)
	vm.more = make(chan struct{})
}

// Close kills QEMU and removes what belongs to it.
func (vm *VM) Close() {
	_ = vm.cmd.Process.Kill() // it may have ended by itself
	vm.wg.Wait()
	_ = vm.cmd.Wait() // killed
	if vm.QMP != nil {
		vm.QMP.Close()
	}
	os.RemoveAll(vm.dir)
}

func (vm *VM) gone() bool {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.ended
}

// Output is what QEMU and the guest have printed.
func (vm *VM) Output() string {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return strings.Join(vm.lines, "\n")
}

// Rounds is how many rounds the guest has completed here.
func (vm *VM) Rounds() int {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return rounds(vm.lines)
}

func rounds(lines []string) int {
	n := 0
	for _, l := range lines {
		if strings.HasPrefix(l, "round ") {
			n++
		}
	}
	return n
}

// ErrCorrupt: the guest found other bytes in its memory than it had written.
var ErrCorrupt = errors.New("the guest's memory is corrupt")

// WaitLine waits for a line that begins with prefix. It fails once the guest finds its memory corrupt.
func (vm *VM) WaitLine(ctx context.Context, prefix string) error {
	return vm.wait(ctx, func(lines []string) bool {
		return slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, prefix) })
	})
}

// WaitRounds waits until the guest has completed n more rounds.
func (vm *VM) WaitRounds(ctx context.Context, n int) error {
	// A round that had begun before says nothing about what is now.
	want := vm.Rounds() + n + 1
	return vm.wait(ctx, func(lines []string) bool { return rounds(lines) >= want })
}

func (vm *VM) wait(ctx context.Context, done func(lines []string) bool) error {
	for {
		vm.mu.Lock()
		ok, ended, more := done(vm.lines), vm.ended, vm.more
		bad := slices.IndexFunc(vm.lines, func(l string) bool { return strings.Contains(l, "CORRUPT") })
		var what string
		if bad >= 0 {
			what = vm.lines[bad]
		}
		vm.mu.Unlock()
		switch {
		case bad >= 0:
			return fmt.Errorf("%w: %s", ErrCorrupt, what)
		case ok:
			return nil
		case ended:
			return fmt.Errorf("memguest: QEMU has ended; its output: %s", vm.Output())
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("memguest: %w; its output: %s", context.Cause(ctx), vm.Output())
		}
	}
}

// Capability is one of QEMU's migration capabilities.
type Capability struct {
	Name string `json:"capability"`
	On   bool   `json:"state"`
}

// SetCapabilities changes migration capabilities.
func (vm *VM) SetCapabilities(ctx context.Context, all ...Capability) error {
	return vm.QMP.Execute(ctx, "migrate-set-capabilities", map[string]any{"capabilities": all}, nil)
}

// Receive has a QEMU that was started with Incoming listen for a guest, with post-copy switched on.
func (vm *VM) Receive(ctx context.Context, uri string) error {
	if err := vm.SetCapabilities(ctx, Capability{"postcopy-ram", true}, Capability{"events", true}); err != nil {
		return err
	}
	return vm.QMP.Execute(ctx, "migrate-incoming", map[string]string{"uri": uri}, nil)
}

// Migrate starts to send the guest to uri, as fast as can be. The guest stands still from now on: QEMU loses writes of
// an emulated one that runs meanwhile.
func (vm *VM) Migrate(ctx context.Context, uri string) error {
	if err := vm.QMP.Execute(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := vm.QMP.Execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40}, nil); err != nil {
		return err
	}
	return vm.QMP.Execute(ctx, "migrate", map[string]string{"uri": uri}, nil)
}
