package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMetaFails makes the only metadata directory read-only below a server. It says so, goes on, ends in time and with
// exit code 1 when it is told to, and a later start has what was acknowledged.
func TestMetaFails(t *testing.T) {
	needTool(t, "qemu-io", "curl")
	if os.Getuid() != 0 {
		t.Skip("making a mount read-only takes root")
	}
	dir := t.TempDir()
	p := serveIn(t, dir, tiny...)
	writePattern(t, dir, "1")
	meta := filepath.Join(dir, "lsad-data/meta")
	if err := unix.Mount(meta, meta, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(meta, unix.MNT_DETACH) })
	if err := unix.Mount("", meta, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skipf("nothing can be made read-only here: %v", err)
	}
	writePattern(t, dir, "2")
	if os.Getenv("LSAD_TEST") == "full" { // until the next checkpoint is due
		for begin := time.Now(); p.status().State != "failed"; time.Sleep(time.Second) {
			if time.Since(begin) > patience {
				t.Fatal("the status does not show it")
			}
		}
		health := mustSh(t, dir, "curl -s -o /dev/null -w '%{http_code}' --unix-socket lsad-data/admin.sock http://lsad/healthz")
		healthy := mustSh(t, dir, "curl -s --unix-socket lsad-data/admin.sock http://lsad/metrics | grep ^lsad_array_healthy")
		if problem := p.status().Problem; health != "503" || !strings.HasSuffix(strings.TrimSpace(healthy), " 0") || !strings.Contains(problem, "lsad-data/meta") || !strings.Contains(problem, "read-only file system") {
			t.Errorf("health %s, %s, %q", health, healthy, problem)
		}
	}
	wantPattern(t, dir, "2")
	begin := time.Now()
	p.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.kill()
		t.Fatal("it does not end")
	}
	said := p.stderr()
	if code := p.cmd.ProcessState.ExitCode(); code != exitFailed || strings.Contains(said, "goroutine ") || strings.Contains(said, "is damaged") || !strings.Contains(said, "nothing that was acknowledged is lost") {
		t.Errorf("exit code %d; it said\n%s", code, said)
	}
	if d, lines := time.Since(begin), strings.Count(said, "\n"); d > 20*time.Second || lines > 100 {
		t.Errorf("it ended after %v and %d lines", d, lines)
	}
	if err := unix.Unmount(meta, 0); err != nil {
		t.Fatal(err)
	}
	p = serveIn(t, dir, again...)
	wantPattern(t, dir, "2")
	p.stop()
	must(t, dir, "check")
}
