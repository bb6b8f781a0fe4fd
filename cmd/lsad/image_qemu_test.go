package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/uffd"
	"lsad/memsvc/qemu/qmp"
	"lsad/server/admin"
)

// machine starts a QEMU with 16 MiB and nothing to boot, whose monitor is DIR/NAME.
func machine(t *testing.T, dir, name string, args ...string) *qmp.Client {
	t.Helper()
	needTool(t, "qemu-system-x86_64")
	own := filepath.Join(t.TempDir(), "own")
	cmd := exec.Command("qemu-system-x86_64", append([]string{"-accel", "tcg", "-m", "16", "-nodefaults", "-display", "none",
		"-qmp", "unix:" + filepath.Join(dir, name) + ",server=on,wait=off", "-qmp", "unix:" + own + ",server=on,wait=off"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := qmp.Dial(t.Context(), "unix", own)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// needUserfaultfd skips a test where nobody could get a page later.
func needUserfaultfd(t *testing.T) {
	t.Helper()
	fd, err := uffd.Open(uffd.FeatureEventRemove)
	if err != nil {
		t.Skipf("no userfaultfd here (it needs root, or the sysctl vm.unprivileged_userfaultfd): %v", err)
	}
	fd.Close()
}

func runState(t *testing.T, c *qmp.Client) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	status, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// TestImageVM saves a real QEMU's machine and resumes it. That a guest finds its memory as it was is for the tests of
// tools/guest/memguest.
func TestImageVM(t *testing.T) {
	dir := t.TempDir()
	vm := machine(t, dir, "a.qmp")
	p := serveIn(t, dir, small...)

	// What cannot be saved runs on.
	for _, args := range [][]string{{"vol0"}, {"vm", "--with-volume", "nothing"}, {"vm", "--parent", "nothing"}} {
		r := lsad(t, dir, append([]string{"image", "ingest", "--qmp", "a.qmp"}, args...)...)
		if r.code != 1 || runState(t, vm) != "running" {
			t.Errorf("%v: %+v, and the VM is %s", args, r, runState(t, vm))
		}
	}
	if all := mustJSON[[]admin.Image](t, dir, "image", "list"); len(all) != 0 {
		t.Errorf("left behind: %+v", all)
	}

	i := mustJSON[admin.Image](t, dir, "image", "ingest", "vm", "--qmp", "a.qmp", "--with-volume", "vol0")
	if i.Source != "qemu" || !strings.HasPrefix(i.Machine, "pc-") || i.RAMBytes < 16<<20 || i.StateBytes < 4096 || i.FreeElided || i.Pages.Zero < 3000 || len(i.Volumes) != 1 {
		t.Errorf("saved %+v", i)
	}
	if got := runState(t, vm); got != "postmigrate" {
		t.Errorf("the saved VM is %s", got)
	}
	// A VM that QEMU does not send, and what is no monitor, cost the server nothing.
	for _, socket := range []string{"a.qmp", "nobody", "lsad-data/admin.sock"} {
		r := lsad(t, dir, "image", "ingest", "more", "--qmp", socket)
		if r.code != 1 || strings.Contains(r.stderr, "EOF") || runState(t, vm) != "postmigrate" {
			t.Errorf("from %s: %+v, and the VM is %s", socket, r, runState(t, vm))
		}
	}
	makeRAM(t, filepath.Join(dir, "ram"), 1)
	must(t, dir, "image", "import", "file", "ram", "--paused")
	for text, args := range map[string][]string{
		"no device state": {"file", "--to", "unix:nobody"},
		"not found":       {"nothing", "--to", "unix:nobody"},
		"does not run at": {"vm", "--to", "unix:nobody", "--without-volumes"},
		"QMP":             {"vm", "--qmp", "nobody", "--without-volumes"},
		"image fork vm":   {"vm", "--qmp", "nobody"},
	} {
		if r := lsad(t, dir, append([]string{"image", "restore"}, args...)...); r.code != 1 || !strings.Contains(r.stderr, text) {
			t.Errorf("%v: %+v, want %q", args, r, text)
		}
	}
	needUserfaultfd(t)
	must(t, dir, "image", "fork", "vm", "fork")
	for _, image := range [][]string{{"fork"}, {"vm", "--without-volumes"}} {
		to := machine(t, dir, "b.qmp", "-incoming", "defer")
		r := mustJSON[admin.Restored](t, dir, append([]string{"image", "restore", "--qmp", "b.qmp"}, image...)...)
		if r.Owner != "destination" || r.DataPages+r.ZeroPages != i.Pages.Total || r.DataPages > i.Pages.InUse || r.Losses != 0 {
			t.Errorf("restored %+v of %+v", r, i.Pages)
		}
		if got := runState(t, to); got != "running" {
			t.Errorf("the restored VM is %s", got)
		}
		if err := os.Remove(filepath.Join(dir, "b.qmp")); err != nil {
			t.Fatal(err)
		}
	}
	// Another machine refuses, and says nothing worse.
	machine(t, dir, "c.qmp", "-incoming", "defer", "-machine", "q35")
	if r := lsad(t, dir, "image", "restore", "fork", "--qmp", "c.qmp"); r.code != 1 || !strings.Contains(r.stderr, "same machine") || !strings.Contains(r.stderr, "does not run at the destination") {
		t.Errorf("to another machine: %+v", r)
	}
	p.stop()
}

// TestIngestInterrupted holds that nothing is left of a VM that did not come, and nobody listens on.
func TestIngestInterrupted(t *testing.T) {
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	for _, args := range [][]string{
		{"vm"}, {"vm", "--listen", "x"}, {"a/b", "--listen", "unix:x"},
	} {
		if r := lsad(t, dir, append([]string{"image", "ingest"}, args...)...); r.code != 2 {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := lsad(t, dir, "image", "ingest", "vm", "--listen", "0.0.0.0:0"); r.code == 0 || !strings.Contains(r.stderr, "--insecure") {
		t.Errorf("for everybody: %+v", r)
	}
	for name, send := range map[string]string{"nothing": "", "noise": "GET / HTTP/1.1\r\n\r\n", "a head": "QEVM\x00\x00\x00\x03\x07"} {
		cmd := exec.Command(lsadBinary, "image", "ingest", "vm", "--listen", "unix:in")
		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		socket := filepath.Join(dir, "in")
		for {
			if _, err := os.Stat(socket); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if send == "" {
			cmd.Process.Signal(unix.SIGINT)
		} else {
			conn := dialSoon(t, socket)
			if _, err := conn.Write([]byte(send)); err != nil {
				t.Error(err)
			}
			conn.Close()
		}
		if err := cmd.Wait(); err == nil {
			t.Errorf("%s: it ended well", name)
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(socket); os.IsNotExist(err) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the server listens on", name)
			}
		}
	}
	if all := mustJSON[[]admin.Image](t, dir, "image", "list"); len(all) != 0 {
		t.Errorf("left behind: %+v", all)
	}
	p.stop()
}

// dialSoon connects to a socket that is there, and may not be listened to yet.
func dialSoon(t *testing.T, path string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestMigrateUsage holds that a migration that cannot begin says who has the VM.
func TestMigrateUsage(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{}, {"--ram", "x"}, {"--ram", "x", "--qmp", "y"}, {"--ram", "x", "--qmp", "y", "--to", "z"}} {
		if r := lsad(t, dir, append([]string{"image", "migrate"}, args...)...); r.code != 2 {
			t.Errorf("%v: %+v", args, r)
		}
	}
	vm := machine(t, dir, "a.qmp", "-object", "memory-backend-file,id=mem0,mem-path="+filepath.Join(dir, "ram")+",size=16M,share=on", "-machine", "memory-backend=mem0")
	r := lsad(t, dir, "image", "migrate", "--ram", "ram", "--qmp", "a.qmp", "--to", "unix:nobody")
	if r.code != 1 || !strings.Contains(r.stderr, "the VM is at the source") || runState(t, vm) != "running" {
		t.Errorf("%+v", r)
	}
	// Another file that has got the name of its RAM would give it the memory of another VM.
	if err := os.Remove(filepath.Join(dir, "ram")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ram"), make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	dst := machine(t, dir, "b.qmp", "-incoming", "defer")
	r = lsad(t, dir, "image", "migrate", "--ram", "ram", "--qmp", "a.qmp", "--to-qmp", "b.qmp")
	if r.code != 1 || !strings.Contains(r.stderr, "is another file; the VM is at the source") || runState(t, vm) != "running" {
		t.Errorf("its file was deleted: %+v", r)
	}
	// That did not cost the destination, which can be told to listen once.
	if err := dst.Execute(t.Context(), "migrate-incoming", map[string]string{"uri": "unix:" + filepath.Join(dir, "in")}, nil); err != nil {
		t.Error(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "dead.qmp")})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false) // as that of a QEMU that was killed
	dead.Close()
	r = lsad(t, dir, "image", "migrate", "--ram", "ram", "--qmp", "dead.qmp", "--to", "unix:nobody")
	if r.code != 1 || !strings.Contains(r.stderr, "nothing was done to the VM") {
		t.Errorf("the source is not there: %+v", r)
	}
}

// TestMigrateDestinationEnds holds that a destination whose QEMU ends when it is told to listen is not taken for the
// source.
func TestMigrateDestinationEnds(t *testing.T) {
	dir := t.TempDir()
	vm := machine(t, dir, "a.qmp", "-object", "memory-backend-file,id=mem0,mem-path="+filepath.Join(dir, "ram")+",size=16M,share=on", "-machine", "memory-backend=mem0")
	l, err := net.Listen("unix", filepath.Join(dir, "b.qmp"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintln(conn, `{"QMP": {"capabilities": []}}`)
		lines := bufio.NewScanner(conn)
		lines.Scan() // qmp_capabilities
		fmt.Fprintln(conn, `{"return": {}, "id": 1}`)
		lines.Scan() // the first command
	}()
	r := lsad(t, dir, "image", "migrate", "--ram", "ram", "--qmp", "a.qmp", "--to-qmp", "b.qmp")
	if r.code != 1 || !strings.Contains(r.stderr, "destination's QEMU has ended") || !strings.Contains(r.stderr, "the VM is at the source") || runState(t, vm) != "running" {
		t.Errorf("%+v", r)
	}
}
