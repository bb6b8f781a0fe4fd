package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"lsad/server/ublk"
)

// TestLocalPageCommands parses each lsad command line of docs/LOCAL.md.
func TestLocalPageCommands(t *testing.T) {
	text, err := os.ReadFile("../../docs/LOCAL.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile("(?m)^    lsad (.*)$").FindAllStringSubmatch(string(text), -1) {
		checkExample(t, strings.Fields(m[1]))
		found++
	}
	if found < 6 {
		t.Errorf("only %d commands found", found)
	}
}

// TestLocalDisksRefused holds what the commands say where nothing can be made or attached.
func TestLocalDisksRefused(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"attach"}, exitUsage, "VOLUME is missing"},
		{[]string{"attach", "--list", "vol0"}, exitUsage, "--list takes none"},
		{[]string{"attach", "nbd://h/v", "/dev/sda"}, exitUsage, "it must be /dev/nbdN"},
		{[]string{"attach", "nbd://h/v", "nbd0"}, exitUsage, "it must be /dev/nbdN"},
		{[]string{"attach", "nbd://h/v", "/dev/nbd0p1"}, exitUsage, "not a partition"},
		{[]string{"attach", "http://h/v"}, exitUsage, "only nbd:// and nbd+unix:// URIs"},
		{[]string{"attach", "nbd://h/v", "--connections", "17"}, exitUsage, "from 1 to 16"},
		{[]string{"attach", "nbd://h/v", "--timeout", "1ms"}, exitUsage, "at least 1s"},
		{[]string{"attach", "nbds://h/v"}, exitFailed, "no TLS"},
		{[]string{"attach", "vol0"}, exitFailed, "serve --dir"},
		{[]string{"detach", "/dev/sda"}, exitFailed, "not the name of an NBD device"},
		{[]string{"ublk", "list"}, exitFailed, "serve --dir"},
		{[]string{"serve", "--ublk", "a/b"}, exitUsage, `ublk "a/b"`},
		{[]string{"serve", "--ublk", "a", "--ublk", "a"}, exitUsage, "named twice"},
	} {
		if r := lsad(t, t.TempDir(), c.args...); r.code != c.code || !strings.Contains(r.stderr, c.says) {
			t.Errorf("%v: status %d, %s", c.args, r.code, r.stderr)
		}
	}
}

// TestUblkWithoutDriver holds that a server says plainly why it makes no disks, and serves on.
func TestUblkWithoutDriver(t *testing.T) {
	if ublk.Available() == nil {
		t.Skip("this machine has a ublk driver, and could use it; tools/guest tests that")
	}
	dir := t.TempDir()
	if r := lsad(t, dir, append([]string{"serve", "--ublk", "vol0"}, small...)...); r.code != exitFailed || !strings.Contains(r.stderr, "ublk") {
		t.Errorf("status %d, %s", r.code, r.stderr)
	}
	if _, err := os.Stat(dir + "/lsad-data"); err == nil {
		t.Error("it made a data directory although it could not serve")
	}
	p := serveIn(t, dir, small...)
	for _, volume := range []string{"vol0", "none"} {
		if r := lsad(t, dir, "ublk", "add", volume); r.code != exitFailed || r.stderr == "" {
			t.Errorf("add %s: status %d, %s", volume, r.code, r.stderr)
		}
	}
	if out := must(t, dir, "ublk", "list", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("the list is %s", out)
	}
	if r := lsad(t, dir, "ublk", "del", "vol0"); r.code != exitFailed || !strings.Contains(r.stderr, "lsad ublk list") {
		t.Errorf("del: status %d, %s", r.code, r.stderr)
	}
	if clients := mustJSON[struct {
		Clients []string `json:"clients"`
	}](t, dir, "volume", "show", "vol0", "--json").Clients; len(clients) != 0 {
		t.Errorf("a disk that could not be made left %q", clients)
	}
	p.stop()
}
