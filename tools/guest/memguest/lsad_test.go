package memguest

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lsad/memsvc/qemu/qmp"
	"lsad/tools/guest"
)

// lsad is the program itself, built once.
var lsad = sync.OnceValues(func() (string, error) {
	if _, err := kit(); err != nil {
		return "", err
	}
	path := filepath.Join(kitDir, "lsad")
	return path, guest.BuildGo(context.Background(), "lsad/cmd/lsad", path)
})

// server is a running lsad serve.
type server struct {
	t   *testing.T
	dir string
}

// serve starts a server with a small array.
func serve(t *testing.T) *server {
	t.Helper()
	program, err := lsad()
	check(t, err)
	s := &server{t, filepath.Join(t.TempDir(), "data")}
	cmd := exec.Command(program, "serve", "--dir", s.dir, "--http", "none", "--volume", "disk:64MiB",
		"--device", filepath.Join(s.dir, "dev0")+":2GiB", "--device", filepath.Join(s.dir, "dev1")+":2GiB", "--map-cache", "32MiB")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have failed
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("lsad serve: %v\n%s", err, &out)
		}
	})
	for range 600 {
		if _, err := os.Stat(filepath.Join(s.dir, "admin.sock")); err == nil {
			if exec.Command(program, "status", "--dir", s.dir).Run() == nil {
				return s
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("lsad serve did not start: %s", &out)
	return nil
}

// command starts an lsad command; wait returns what it prints.
func command(t *testing.T, ctx context.Context, args ...string) (wait func() (stdout, stderr string, err error)) {
	t.Helper()
	program, err := lsad()
	check(t, err)
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	check(t, cmd.Start())
	return func() (string, string, error) {
		err := cmd.Wait()
		return out.String(), errs.String(), err
	}
}

func (s *server) start(ctx context.Context, args ...string) func() (string, string, error) {
	s.t.Helper()
	return command(s.t, ctx, append(args, "--dir", s.dir, "--json")...)
}

// run runs a command against the server and decodes what it prints into result, unless that is nil.
func (s *server) run(ctx context.Context, result any, args ...string) {
	s.t.Helper()
	out, errs, err := s.start(ctx, args...)()
	if err != nil {
		s.t.Fatalf("lsad %s: %v: %s", strings.Join(args, " "), err, errs)
	}
	if result != nil {
		check(s.t, json.Unmarshal([]byte(out), result))
	}
}

// waitFor waits until a file, or a socket, is there.
func waitFor(t *testing.T, ctx context.Context, path string) {
	t.Helper()
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s: %v", path, ctx.Err())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type imageInfo struct {
	RAMBytes    int64 `json:"ram_bytes"`
	StoredBytes int64 `json:"stored_bytes"`
	Pages       struct{ Total, Free, Zero int64 }
	FreeElided  bool   `json:"free_elided"`
	Why         string `json:"why"`
	Volumes     []struct{ Name, Snapshot, Clone string }
}

type restoredInfo struct {
	Owner        string
	DataPages    int64   `json:"data_pages"`
	ZeroPages    int64   `json:"zero_pages"`
	ToRunSeconds float64 `json:"to_run_seconds"`
	Losses       int
	Demanded     int
	Prefetched   int
}

// restoreImage restores an image into a new QEMU, and waits until the guest has checked its memory there.
func (s *server) restoreImage(ctx context.Context, o Options, name string) (*VM, restoredInfo) {
	s.t.Helper()
	o.Incoming = true
	vm := start(s.t, o)
	var r restoredInfo
	s.run(ctx, &r, "image", "restore", name, "--qmp", vm.Monitor)
	check(s.t, vm.WaitRounds(ctx, 2))
	return vm, r
}

// TestCommands is the way of a user: save a VM with its disk, resume forks of the image, and save what came of one.
func TestCommands(t *testing.T) {
	ctx := withPatience(t)
	o := Options{MemoryMiB: 256, UsedMiB: 40, FreedMiB: 100}
	vm := start(t, o)
	s := serve(t)
	check(t, vm.WaitLine(ctx, "ready"))
	check(t, vm.WaitRounds(ctx, 1))

	var image imageInfo
	in := unixPath(t, "in")
	wait := s.start(ctx, "image", "ingest", "one", "--listen", "unix:"+in, "--with-volume", "disk")
	waitFor(t, ctx, in)
	check(t, vm.Migrate(ctx, "unix:"+in))
	out, errs, err := wait()
	if err != nil {
		t.Fatalf("ingest: %v: %s", err, errs)
	}
	check(t, json.Unmarshal([]byte(out), &image))
	t.Logf("image: %s", out)
	vm.Close()
	if !image.FreeElided || image.Pages.Free < 20000 {
		t.Errorf("100 MiB were freed, and %d pages left out: %s", image.Pages.Free, image.Why)
	}
	if len(image.Volumes) != 1 || image.Volumes[0].Name != "disk" {
		t.Errorf("volumes %+v", image.Volumes)
	}
	if _, errs, err := s.start(ctx, "image", "restore", "one", "--qmp", "nobody")(); err == nil || !strings.Contains(errs, "lsad image fork one") {
		t.Errorf("an image with disks was restored without a fork: %v: %s", err, errs)
	}
	for _, name := range []string{"first", "second"} {
		s.run(ctx, nil, "image", "fork", "one", name)
		vm, r := s.restoreImage(ctx, o, name)
		t.Logf("restored: %+v", r)
		if r.Owner != "destination" || r.DataPages > image.Pages.Total-image.Pages.Free-image.Pages.Zero || r.DataPages+r.ZeroPages != image.Pages.Total {
			t.Errorf("restored %+v", r)
		}
		vm.Close()
	}
	s.run(ctx, nil, "image", "fork", "one", "two")
	var fork imageInfo
	s.run(ctx, &fork, "image", "show", "two")
	if len(fork.Volumes) != 1 || fork.Volumes[0].Clone != "two-disk" {
		t.Errorf("the fork's volumes: %+v", fork.Volumes)
	}
	vm, _ = s.restoreImage(ctx, o, "two")

	// What the VM has become since is an image of its own, with only the difference stored.
	var third imageInfo
	s.run(ctx, &third, "image", "ingest", "three", "--qmp", vm.Monitor, "--parent", "one")
	vm.Close()
	if third.StoredBytes >= image.StoredBytes*3/4 {
		t.Errorf("the second image takes %d bytes by itself, the first %d", third.StoredBytes, image.StoredBytes)
	}
	vm, _ = s.restoreImage(ctx, o, "three")
	vm.Close()
}

// waitingFor saves a guest as an image, "one", and starts a QEMU that waits for it.
func waitingFor(t *testing.T, ctx context.Context, o Options) (*VM, *server) {
	t.Helper()
	vm := start(t, o)
	s := serve(t)
	check(t, vm.WaitLine(ctx, "ready"))
	s.run(ctx, nil, "image", "ingest", "one", "--qmp", vm.Monitor)
	vm.Close()
	o.Incoming = true
	return start(t, o), s
}

// TestRestoreResumed holds that a VM whose restore was killed waits, and goes on when the restore is run again.
func TestRestoreResumed(t *testing.T) {
	ctx := withPatience(t)
	vm, s := waitingFor(t, ctx, Options{MemoryMiB: 256, UsedMiB: 60})
	dying, kill := context.WithCancel(ctx)
	wait := s.start(dying, "image", "restore", "one", "--qmp", vm.Monitor, "--rate", "4MiB")
	_, err := vm.QMP.Wait(ctx, func(e qmp.Event) bool { return e.Name == "RESUME" })
	check(t, err)
	// What QEMU's main loop needs is there by now. Else it may wait for memory, and answer no new monitor.
	check(t, vm.WaitRounds(ctx, 1))
	kill()
	if _, _, err := wait(); err == nil {
		t.Fatal("it ended before it was killed")
	}
	var r restoredInfo
	s.run(ctx, &r, "image", "restore", "one", "--qmp", vm.Monitor, "--resume")
	t.Logf("%+v", r)
	check(t, vm.WaitRounds(ctx, 3))
}

// TestIngestRefused holds that a VM that could not be saved runs on, and that the memory in an image is that of the VM
// when it had stopped.
func TestIngestRefused(t *testing.T) {
	ctx := withPatience(t)
	ram := filepath.Join(t.TempDir(), "ram")
	vm := start(t, Options{MemoryMiB: 128, UsedMiB: 20, RAMFile: ram})
	s := serve(t)
	check(t, vm.WaitLine(ctx, "ready"))
	for _, args := range [][]string{{"disk"}, {"one", "--parent", "nothing"}, {"one", "--with-volume", "nothing"}} {
		out, errs, err := s.start(ctx, append([]string{"image", "ingest", "--qmp", vm.Monitor}, args...)...)()
		if err == nil {
			t.Fatalf("%v: %s", args, out)
		}
		t.Logf("%v: %s", args, errs)
		check(t, vm.WaitRounds(ctx, 1))
	}
	s.run(ctx, nil, "image", "ingest", "one", "--qmp", vm.Monitor, "--keep-free")
	saved := filepath.Join(t.TempDir(), "saved")
	if out, errs, err := s.start(ctx, "image", "export", "one", saved)(); err != nil {
		t.Fatalf("export: %v: %s%s", err, out, errs)
	}
	was, err := os.ReadFile(ram)
	check(t, err)
	is, err := os.ReadFile(saved)
	check(t, err)
	const page = 4 << 10
	differ := 0
	for off := 0; off < len(was); off += page {
		if !bytes.Equal(is[off:off+page], was[off:off+page]) {
			differ++
		}
	}
	if len(was) == 0 || differ > 0 {
		t.Errorf("%d pages of %d are not what the VM had when it stopped", differ, len(was)/page)
	}
	s.run(ctx, nil, "image", "delete", "one")
}

// TestRestoreLost holds that a restore whose connection is cut in the middle finds the destination again by itself.
func TestRestoreLost(t *testing.T) {
	ctx := withPatience(t)
	vm, s := waitingFor(t, ctx, Options{MemoryMiB: 256, UsedMiB: 60})
	check(t, vm.SetCapabilities(ctx, Capability{"events", true}))
	wait := s.start(ctx, "image", "restore", "one", "--qmp", vm.Monitor, "--rate", "40MiB")
	_, err := vm.QMP.Wait(ctx, func(e qmp.Event) bool { return e.Name == "RESUME" })
	check(t, err)
	check(t, vm.QMP.ExecuteNow(ctx, "migrate-pause", nil, nil))
	_, err = vm.QMP.Wait(ctx, func(e qmp.Event) bool {
		return e.Name == "MIGRATION" && strings.Contains(string(e.Data), "postcopy-paused")
	})
	check(t, err)
	out, errs, err := wait()
	if err != nil {
		t.Fatalf("restore: %v: %s", err, errs)
	}
	var r restoredInfo
	check(t, json.Unmarshal([]byte(out), &r))
	if r.Losses != 1 || r.Owner != "destination" {
		t.Errorf("%+v", r)
	}
	check(t, vm.WaitRounds(ctx, 3))
}
