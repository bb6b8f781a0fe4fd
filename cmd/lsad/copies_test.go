package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lsad/server/admin"
)

// TestTwoCopies: a volume of two copies outlives a device, on the command line.
func TestTwoCopies(t *testing.T) {
	needTool(t, "qemu-io")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	if v := mustJSON[admin.Volume](t, dir, "volume", "create", "safe", "16MiB", "--copies", "2"); v.Copies != 2 {
		t.Errorf("created %+v", v)
	}
	if r := lsad(t, dir, "volume", "create", "three", "16MiB", "--copies", "3"); r.code != 2 || !strings.Contains(r.stderr, "1 or 2") {
		t.Errorf("three copies: %+v", r)
	}
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 5 0 8M' "+uri("safe"))
	if r := mustJSON[admin.ScrubReport](t, dir, "scrub"); r.Blocks != 4096 || r.Bad != 0 {
		t.Errorf("scrubbed %+v", r)
	}
	p.stop()
	away := filepath.Join(dir, "away")
	d1 := filepath.Join(dir, "lsad-data/d1")
	if err := os.Rename(d1, away); err != nil {
		t.Fatal(err)
	}
	p = serveIn(t, dir, append(again, "--degraded")...)
	mustSh(t, dir, "qemu-io -f raw -c 'read -P 5 0 8M' -c 'write -P 6 4M 1M' "+uri("safe"))
	if s := p.status(); s.Devices[1].State != "gone" {
		t.Errorf("the device is %+v", s.Devices[1])
	}
	p.stop()
	p = serveIn(t, dir, again...)
	mustSh(t, dir, "qemu-io -f raw -c 'read -P 6 4M 1M' -c 'read -P 5 5M 3M' "+uri("safe"))
	if out := must(t, dir, "volume", "list"); !strings.Contains(out, "COPIES") {
		t.Errorf("volume list:\n%s", out)
	}
	if out := must(t, dir, "scrub"); !strings.Contains(out, " 0 lost") {
		t.Errorf("scrub: %s", out)
	}
	p.stop()
}
