package memguest

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lsad/memsvc/qemu"
	"lsad/memsvc/qemu/qmp"
)

// source starts a VM whose RAM is a shared file, and waits until it has checked its memory.
func source(t *testing.T, ctx context.Context, o Options) (*VM, *os.File) {
	t.Helper()
	dir := t.TempDir()
	if st, err := os.MkdirTemp("/dev/shm", "lsad-memguest-"); err == nil {
		t.Cleanup(func() { os.RemoveAll(st) })
		dir = st
	}
	o.RAMFile = filepath.Join(dir, "ram")
	vm := start(t, o)
	check(t, vm.WaitLine(ctx, "ready"))
	check(t, vm.WaitRounds(ctx, 1))
	f, err := os.Open(o.RAMFile)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return vm, f
}

// destination starts a QEMU that waits for such a VM, and returns the socket that it listens on.
func destination(t *testing.T, ctx context.Context, o Options) (*VM, string) {
	t.Helper()
	o.Incoming, o.RAMName = true, "mem0"
	vm := start(t, o)
	path := unixPath(t, "to")
	check(t, vm.Receive(ctx, "unix:"+path))
	return vm, path
}

func migration(t *testing.T, ctx context.Context, vm *VM, ram *os.File, to string) qemu.MigrateOptions {
	t.Helper()
	monitor, err := qmp.Dial(ctx, "unix", vm.Monitor)
	check(t, err)
	t.Cleanup(func() { monitor.Close() })
	path := unixPath(t, "state")
	l, err := net.Listen("unix", path)
	check(t, err)
	return qemu.MigrateOptions{
		RAM: ram, Monitor: monitor, Listener: l, URI: "unix:" + path, Dial: dialUnix(to),
		Progress: func(p qemu.Progress) { t.Logf("%s %s: %d of %d pages", p.Phase, p.Owner, p.SentPages, p.TotalPages) },
	}
}

func TestMigrate(t *testing.T) {
	ctx := withPatience(t)
	o := Options{MemoryMiB: 256, UsedMiB: 48, FreedMiB: 64}
	src, ram := source(t, ctx, o)
	dst, to := destination(t, ctx, o)
	m, err := qemu.Migrate(ctx, migration(t, ctx, src, ram, to))
	check(t, err)
	t.Logf("migrated: %+v", m)
	_, err = dst.QMP.Wait(ctx, func(e qmp.Event) bool { return e.Name == "RESUME" })
	check(t, err)
	check(t, dst.WaitRounds(ctx, 3))
	if status, err := src.QMP.Status(ctx); err != nil || status != "postmigrate" {
		t.Errorf("the source is %s, %v", status, err)
	}
}

// TestMigrateRefused holds that a destination that is not like the source costs the VM nothing: it runs on where it
// was, and can be migrated after that.
func TestMigrateRefused(t *testing.T) {
	ctx := withPatience(t)
	o := Options{MemoryMiB: 128, UsedMiB: 20}
	src, ram := source(t, ctx, o)
	for _, test := range []struct {
		name   string
		change func(*Options)
	}{
		{"less memory", func(o *Options) { o.MemoryMiB = 96 }},
		{"another machine", func(o *Options) { o.Args = []string{"-machine", "q35"} }},
	} {
		wrong := o
		test.change(&wrong)
		_, to := destination(t, ctx, wrong)
		move := migration(t, ctx, src, ram, to)
		m, err := qemu.Migrate(ctx, move)
		move.Monitor.Close()
		if err == nil || m.Owner != qemu.Source {
			t.Fatalf("%s: owner %s, %v", test.name, m.Owner, err)
		}
		t.Logf("%s: %v", test.name, err)
		if status, err := src.QMP.Status(ctx); err != nil || status != "running" {
			t.Fatalf("%s: the source is %s, %v", test.name, status, err)
		}
		check(t, src.WaitRounds(ctx, 1))
	}
	dst, to := destination(t, ctx, o)
	_, err := qemu.Migrate(ctx, migration(t, ctx, src, ram, to))
	check(t, err)
	check(t, dst.WaitRounds(ctx, 2))
}

// TestMigrateResumed holds that the death of the command in the middle leaves a VM that waits, and that the command
// can be run again.
func TestMigrateResumed(t *testing.T) {
	ctx := withPatience(t)
	o := Options{MemoryMiB: 256, UsedMiB: 64, FreedMiB: 64}
	src, ram := source(t, ctx, o)
	dst, to := destination(t, ctx, o)
	args := []string{"image", "migrate", "--json", "--ram", ram.Name(), "--qmp", src.Monitor, "--to", "unix:" + to}
	dying, kill := context.WithCancel(ctx)
	wait := command(t, dying, append(args, "--rate", "4MiB", "--state-from", "unix:"+unixPath(t, "state"))...)
	_, err := dst.QMP.Wait(ctx, func(e qmp.Event) bool { return e.Name == "RESUME" })
	check(t, err)
	kill() // as by SIGKILL
	if _, _, err := wait(); err == nil {
		t.Fatal("it ended before it was killed")
	}
	_, err = dst.QMP.Wait(ctx, func(e qmp.Event) bool {
		return e.Name == "MIGRATION" && strings.Contains(string(e.Data), "postcopy-paused")
	})
	check(t, err)
	check(t, dst.QMP.ExecuteNow(ctx, "migrate-recover", map[string]string{"uri": "unix:" + to}, nil))
	out, errs, err := command(t, ctx, append(args, "--resume")...)()
	if err != nil {
		t.Fatalf("resume: %v: %s", err, errs)
	}
	t.Logf("%s", out)
	check(t, dst.WaitRounds(ctx, 3))
}

// TestMigrateInterrupted interrupts the command at random moments: it says who has the VM, that is true, and the guest
// goes on there with its memory as it was.
func TestMigrateInterrupted(t *testing.T) {
	ctx := withPatience(t)
	o := Options{MemoryMiB: 128, UsedMiB: 30}
	src, ram := source(t, ctx, o)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	program, err := lsad()
	check(t, err)
	for range 4 {
		dst, to := destination(t, ctx, o)
		args := []string{"image", "migrate", "--ram", ram.Name(), "--qmp", src.Monitor, "--to", "unix:" + to, "--rate", "4MiB"}
		cmd := exec.CommandContext(ctx, program, args...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		check(t, cmd.Start())
		time.Sleep(time.Duration(random.Int64N(int64(300 * time.Millisecond)))) // any moment will do
		check(t, cmd.Process.Signal(os.Interrupt))
		if cmd.Wait() == nil {
			t.Fatal("it was not interrupted")
		}
		status, err := src.QMP.Status(ctx)
		check(t, err)
		if handed, code := status == "postmigrate", cmd.ProcessState.ExitCode(); (code == 3) != handed {
			t.Errorf("exit code %d, and the source is %s: %s", code, status, &errs)
		}
		lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
		switch text := lines[len(lines)-1]; {
		case text == "", strings.HasSuffix(text, "nothing was done to the VM"), // it had not begun
			strings.HasSuffix(text, "the VM is at the source"):
			if status != "running" {
				t.Fatalf("the source is %s: %s", status, text)
			}
			check(t, src.WaitRounds(ctx, 1))
			dst.Close()
		case strings.Contains(text, "handed to the destination"):
			if status != "postmigrate" {
				t.Fatalf("the source is %s: %s", status, text)
			}
			t.Log("handed over")
			_, err := dst.QMP.Wait(ctx, func(e qmp.Event) bool {
				return e.Name == "MIGRATION" && strings.Contains(string(e.Data), "postcopy-paused")
			})
			check(t, err)
			check(t, dst.QMP.ExecuteNow(ctx, "migrate-recover", map[string]string{"uri": "unix:" + to}, nil))
			if out, errs, err := command(t, ctx, append(args[:len(args)-2], "--resume")...)(); err != nil {
				t.Fatalf("resume: %v: %s%s", err, out, errs)
			}
			check(t, dst.WaitRounds(ctx, 2))
			return
		default:
			t.Fatalf("it does not say who has the VM: %s", &errs)
		}
	}
}
