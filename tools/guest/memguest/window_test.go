package memguest

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"lsad/memsvc/qemu/qmp"
)

// farAway is a socket that stands for to, as far away as a message takes lag to get there or back.
func farAway(t *testing.T, to string, lag time.Duration) string {
	t.Helper()
	path := unixPath(t, "far")
	l, err := net.Listen("unix", path)
	check(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			b, err := net.Dial("unix", to)
			if err != nil {
				a.Close()
				continue
			}
			go carry(a, b, lag)
			go carry(b, a, lag)
		}
	}()
	return path
}

// carry takes what from says to to, later; its end as well.
func carry(from, to net.Conn, lag time.Duration) {
	type parcel struct {
		data []byte
		due  time.Time
	}
	way := make(chan parcel, 1<<16)
	go func() {
		defer to.Close()
		for p := range way {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				from.Close()
			}
		}
	}()
	defer close(way)
	for {
		p := parcel{data: make([]byte, 64<<10)}
		n, err := from.Read(p.data)
		p.data, p.due = p.data[:n], time.Now().Add(lag)
		way <- p
		if err != nil {
			return
		}
	}
}

// interruptWhenRunning starts a command, interrupts it as soon as it says that the VM was handed over, and returns what
// it has said and its exit code.
func interruptWhenRunning(t *testing.T, ctx context.Context, args ...string) (said string, code int) {
	t.Helper()
	program, err := lsad()
	check(t, err)
	cmd := exec.CommandContext(ctx, program, args...)
	errs, err := cmd.StderrPipe()
	check(t, err)
	check(t, cmd.Start())
	var all strings.Builder
	for scan := bufio.NewScanner(io.TeeReader(errs, &all)); scan.Scan(); {
		if text := scan.Text(); strings.HasPrefix(text, "running: ") || strings.HasPrefix(text, "runs at ") {
			check(t, cmd.Process.Signal(os.Interrupt))
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatalf("it was not interrupted: %s", &all)
	}
	return all.String(), cmd.ProcessState.ExitCode()
}

// paused waits until a destination has noticed that it has lost its source; it must not end.
func paused(t *testing.T, ctx context.Context, vm *VM) {
	t.Helper()
	_, err := vm.QMP.Wait(ctx, func(e qmp.Event) bool {
		return e.Name == "MIGRATION" && strings.Contains(string(e.Data), "postcopy-paused")
	})
	check(t, err)
}

// TestMigrateInterruptedEarly interrupts a migration when the VM was handed over and the destination, which is far away,
// has not begun to load it. It survives that.
func TestMigrateInterruptedEarly(t *testing.T) {
	ctx := withPatience(t)
	o := Options{MemoryMiB: 128, UsedMiB: 30}
	src, ram := source(t, ctx, o)
	dst, to := destination(t, ctx, o)
	args := []string{"image", "migrate", "--ram", ram.Name(), "--qmp", src.Monitor}
	said, code := interruptWhenRunning(t, ctx, append(args, "--to", "unix:"+farAway(t, to, 200*time.Millisecond), "--rate", "1MiB")...)
	t.Logf("exit %d: %s", code, said)
	if code != 3 || !strings.Contains(said, "interrupted: the VM is at the destination; waiting until it has begun") || !strings.Contains(said, "handed to the destination") {
		t.Error("it does not say that it waits, or not who has the VM, or not by its exit code")
	}
	paused(t, ctx, dst)
	check(t, dst.QMP.ExecuteNow(ctx, "migrate-recover", map[string]string{"uri": "unix:" + to}, nil))
	if out, errs, err := command(t, ctx, append(args, "--to", "unix:"+to, "--resume")...)(); err != nil {
		t.Fatalf("resume: %v: %s%s", err, out, errs)
	}
	check(t, dst.WaitRounds(ctx, 2))
}

// TestRestoreInterruptedEarly is the same of a restore, which the server drives: its client waits for what came of it.
func TestRestoreInterruptedEarly(t *testing.T) {
	ctx := withPatience(t)
	vm, s := waitingFor(t, ctx, Options{MemoryMiB: 128, UsedMiB: 30})
	to := unixPath(t, "to")
	check(t, vm.Receive(ctx, "unix:"+to))
	args := []string{"image", "restore", "one", "--dir", s.dir, "--json"}
	said, code := interruptWhenRunning(t, ctx, append(args, "--to", "unix:"+farAway(t, to, 400*time.Millisecond), "--rate", "1MiB")...)
	t.Logf("exit %d: %s", code, said)
	if code != 3 || !strings.Contains(said, "interrupted: waiting until the destination has begun") || !strings.Contains(said, "--resume") {
		t.Error("it does not say that it waits, or not who has the VM")
	}
	paused(t, ctx, vm)
	check(t, vm.QMP.ExecuteNow(ctx, "migrate-recover", map[string]string{"uri": "unix:" + to}, nil))
	s.run(ctx, nil, "image", "restore", "one", "--to", "unix:"+to, "--resume")
	check(t, vm.WaitRounds(ctx, 2))
}
