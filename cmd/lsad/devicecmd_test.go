package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lsad/server/admin"
)

// TestChangeDevices: devices come and go while the server has data on them, and a restart knows.
func TestChangeDevices(t *testing.T) {
	needTool(t, "qemu-io")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	must(t, dir, "volume", "create", "v", "16MiB")
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 5 0 8M' "+uri("v"))
	read := func() { t.Helper(); mustSh(t, dir, "qemu-io -r -f raw -c 'read -P 5 0 8M' "+uri("v")) }

	checkFailure(t, lsad(t, dir, "device", "add", "lsad-data/d1"), 1, []string{"d1", "another lsad"})
	checkFailure(t, lsad(t, dir, "device", "add", "none"), 1, []string{"none", "does not exist", "size"})
	checkFailure(t, lsad(t, dir, "device", "add", "tiny:1MiB"), 1, []string{"tiny", "too small"})
	checkFailure(t, lsad(t, dir, "device", "remove", "d9"), 1, []string{"d9", "device list"})
	if _, err := os.Stat(filepath.Join(dir, "tiny")); err == nil {
		t.Error("a device that was refused was made")
	}

	if d := mustJSON[admin.Device](t, dir, "device", "add", "more:64MiB"); d.Slot != 3 || !d.InService {
		t.Errorf("added %+v", d)
	}
	read()
	if out := must(t, dir, "device", "remove", "d1"); !strings.Contains(out, "removed") {
		t.Errorf("remove: %s", out)
	}
	read()
	out := must(t, dir, "device", "replace", "0", "lsad-data/d5:64MiB")
	if !strings.Contains(out, "d5") {
		t.Errorf("replace: %s", out)
	}
	read()
	must(t, dir, "gc", "status")
	must(t, dir, "device", "add", "lsad-data/d0") // it is blank now
	p.stop()
	p = serveIn(t, dir, again...)
	read()
	s := p.status()
	var in []string
	for _, d := range s.Devices {
		if d.InService {
			in = append(in, filepath.Base(d.Name))
		}
	}
	if s.State != "serving" || strings.Join(in, " ") != "d2 more d5 d0" {
		t.Errorf("%s with devices %v", s.State, in)
	}
	p.kill()
	p = serveIn(t, dir, again...)
	read()
	p.stop()
	must(t, dir, "check")
}

// TestDeviceFileDeleted: a server whose device's file somebody deletes goes on, and says so wherever one looks.
func TestDeviceFileDeleted(t *testing.T) {
	needTool(t, "curl")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	if err := os.Remove(filepath.Join(dir, "lsad-data/d1")); err != nil {
		t.Fatal(err)
	}
	if s := p.status(); s.State != "degraded" || !strings.Contains(s.Problem, "d1") || !strings.Contains(s.Problem, "deleted") {
		t.Errorf("status %q, %q", s.State, s.Problem)
	}
	if out := must(t, dir, "device", "list"); !strings.Contains(out, "deleted") {
		t.Errorf("device list:\n%s", out)
	}
	if code := mustSh(t, dir, "curl -s -o /dev/null -w '%{http_code}' --unix-socket lsad-data/admin.sock http://lsad/healthz"); code != "503" {
		t.Errorf("health %s", code)
	}
	for begin := time.Now(); !strings.Contains(p.stderr(), "deleted, cut or moved"); time.Sleep(50 * time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatal("the log does not say it")
		}
	}
	p.stop()
}
