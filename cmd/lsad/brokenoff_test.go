package main

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"lsad/server/admin"
)

// startScrub starts a scrub that would take minutes, and returns when the server is at it.
func startScrub(t *testing.T, dir string) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	out := &strings.Builder{}
	cmd := exec.Command(lsadBinary, "scrub", "--rate", "64KiB")
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := admin.NewClient("unix", dir+"/lsad-data/admin.sock", "")
	for range 2000 {
		if w, err := c.Work(t.Context()); err == nil && w.Scrub.Running {
			return cmd, out
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("the scrub does not run: %s", out)
	return nil, nil
}

// TestBrokenOff interrupts a scrub, and stops the server during one. Both end at once and say what happened.
func TestBrokenOff(t *testing.T) {
	needTool(t, "qemu-io")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	must(t, dir, "volume", "create", "v", "16MiB")
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 5 0 16M' "+uri("v"))

	cmd, out := startScrub(t, dir)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "broken off") || strings.Contains(out.String(), "context") {
		t.Errorf("an interrupted scrub: %v, %s", err, out)
	}

	cmd, out = startScrub(t, dir)
	begin := time.Now()
	p.stop()
	if took := time.Since(begin); took > drainTime/2 {
		t.Errorf("the server waited for a scrub: %v", took)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "the server is stopping") {
		t.Errorf("a scrub whose server stopped: %v, %s", err, out)
	}
}
