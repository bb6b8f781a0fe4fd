package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"lsad/tools/guest/wire"
)

// bootTimeout is how long a guest may take to start. It takes a minute if six
// others want each core; only a hang reaches this.
const bootTimeout = 5 * time.Minute

// ErrPoweredOff is what scripts get that run while the guest ends, or that are
// started after it.
var ErrPoweredOff = errors.New("guest is powered off")

// A VM is a running guest.
type VM struct {
	Release string        // of the guest's kernel
	Uptime  time.Duration // of the guest's kernel when it was ready

	dir     string
	qemu    *exec.Cmd
	conn    net.Conn
	console console
	dead    chan struct{} // closed when QEMU has ended and the readers have
	wg      sync.WaitGroup

	mu     sync.Mutex
	enc    *json.Encoder
	jobs   map[uint64]*Job
	nextID uint64
	gone   bool // no job will ever get an event again
	hello  chan wire.Hello
}

// Boot starts a guest and waits until it can run scripts. The caller closes
// it.
func Boot(ctx context.Context, o Options) (*VM, error) {
	o = o.withDefaults()
	qemu, err := findTool("qemu-system-x86_64")
	if err != nil {
		return nil, err
	}
	kernel, err := Prepare(ctx, o.Kernel)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lsad-guest-")
	if err != nil {
		return nil, err
	}
	vm := &VM{dir: dir, jobs: map[uint64]*Job{}, hello: make(chan wire.Hello, 1), dead: make(chan struct{})}
	if err := vm.boot(ctx, qemu, kernel, o); err != nil {
		vm.Close()
		return nil, fmt.Errorf("boot guest: %w", err)
	}
	return vm, nil
}

func (vm *VM) boot(ctx context.Context, qemu string, k *Kernel, o Options) error {
	initramfs := filepath.Join(vm.dir, "initramfs")
	if err := writeInitramfs(ctx, initramfs, k, o); err != nil {
		return err
	}
	for _, d := range o.Disks {
		if err := d.create(); err != nil {
			return err
		}
	}
	socket := filepath.Join(vm.dir, "agent.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := vm.startQEMU(qemu, qemuArgs(k, initramfs, socket, o)); err != nil {
		return err
	}
	return vm.waitReady(ctx, listener)
}

// startQEMU starts the emulator and the goroutine that keeps its console and
// notices its end.
func (vm *VM) startQEMU(path string, args []string) error {
	vm.qemu = exec.Command(path, args...)
	vm.qemu.Stdout, vm.qemu.Stderr = &vm.console, &vm.console
	// The guest must not outlive a test that is killed.
	vm.qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := vm.qemu.Start(); err != nil {
		vm.qemu = nil
		return err
	}
	go func() {
		_ = vm.qemu.Wait() // it is killed, as a rule
		vm.wg.Wait()
		close(vm.dead)
	}()
	return nil
}

// waitReady takes QEMU's connection and waits for the agent's hello.
func (vm *VM) waitReady(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, errors.New("the guest did not start in time"))
	defer cancel()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	conn, err := listener.Accept()
	if err != nil {
		return fmt.Errorf("wait for QEMU: %w; its output: %s", errors.Join(err, context.Cause(ctx)), vm.Console())
	}
	vm.conn, vm.enc = conn, json.NewEncoder(conn)
	vm.wg.Add(1)
	go func() {
		defer vm.wg.Done()
		vm.readEvents()
	}()
	return vm.awaitHello(ctx)
}

// awaitHello waits until the agent says that it can run scripts.
func (vm *VM) awaitHello(ctx context.Context) error {
	select {
	case hello, ok := <-vm.hello:
		if !ok {
			return fmt.Errorf("%w before it was ready; console: %s", ErrPoweredOff, vm.Console())
		}
		if hello.Err != "" {
			return fmt.Errorf("set-up in the guest: %s; console: %s", hello.Err, vm.Console())
		}
		vm.Release = hello.Release
		vm.Uptime = time.Duration(hello.Uptime * float64(time.Second))
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w; console: %s", context.Cause(ctx), vm.Console())
	}
}

// Reset restarts the guest's machine as a hardware reset does, without clearing
// its RAM, and waits until it can run scripts again. No job may be running.
func (vm *VM) Reset(ctx context.Context) error {
	if _, err := vm.QMP(ctx, "set-action", map[string]string{"reboot": "reset"}); err != nil {
		return err
	}
	if _, err := vm.QMP(ctx, "system_reset", nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, errors.New("the guest did not start again in time"))
	defer cancel()
	return vm.awaitHello(ctx)
}

// PowerOff kills the emulator, which is a power cut to the guest, and waits
// for its end. Running scripts end with ErrPoweredOff.
func (vm *VM) PowerOff() {
	if vm.qemu == nil {
		return
	}
	_ = vm.qemu.Process.Kill() // it may have ended by itself
	if vm.conn != nil {
		vm.conn.Close()
	}
	<-vm.dead
}

// WaitOff waits until the guest has ended by itself, as it does when its system
// shuts down or reboots.
func (vm *VM) WaitOff(ctx context.Context) error {
	select {
	case <-vm.dead:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the guest to shut down: %w", context.Cause(ctx))
	}
}

// Close powers the guest off and removes what belongs to it, except its disks.
func (vm *VM) Close() {
	vm.PowerOff()
	os.RemoveAll(vm.dir)
}

// Console returns the newest part of what the guest's kernel and its agent
// printed.
func (vm *VM) Console() string { return vm.console.String() }

// qemuArgs is QEMU's command line.
func qemuArgs(k *Kernel, initramfs, socket string, o Options) []string {
	args := []string{
		// Host virtualization is not asked for: where these tests run it is
		// missing, or fails on a kernel's protected mode.
		"-accel", "tcg", "-cpu", o.CPU,
		"-m", strconv.Itoa(o.MemoryMiB), "-smp", strconv.Itoa(o.CPUs),
		"-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio",
		"-kernel", k.Image, "-initrd", initramfs,
		// The kernel's check of the timer interrupt fails, and panics, when a
		// busy host does not run the emulator for a while.
		"-append", "console=ttyS0 panic=-1 quiet mitigations=off no_timer_check " + o.Append,
		"-qmp", "unix:" + filepath.Join(filepath.Dir(socket), qmpSocket) + ",server=on,wait=off",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,path=" + socket,
		"-device", "virtserialport,chardev=agent,name=" + wire.PortName,
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
	}
	machine := o.Machine
	if o.MemoryFile != "" {
		args = append(args, "-object", fmt.Sprintf("memory-backend-file,id=mem0,mem-path=%s,size=%dM,share=on", o.MemoryFile, o.MemoryMiB))
		machine += ",memory-backend=mem0"
	}
	args = append(args, "-machine", machine)
	if o.CountInstructions {
		args = append(args, "-icount", "shift=2,sleep=off")
	}
	for i, d := range o.Disks {
		id := "disk" + strconv.Itoa(i)
		args = append(args,
			"-blockdev", fmt.Sprintf("driver=file,node-name=%s,filename=%s,discard=unmap", id, d.Path),
			"-device", "virtio-blk-pci,drive="+id)
	}
	return append(args, o.QEMU...)
}
