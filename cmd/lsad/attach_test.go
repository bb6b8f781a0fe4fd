package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAttachAddr holds which of a server's addresses is attached to.
func TestAttachAddr(t *testing.T) {
	const socket = "/srv/data/nbd.sock"
	for _, c := range []struct {
		listens []string
		want    string
	}{
		{[]string{"127.0.0.1:10809", "unix:/run/a.sock", "unix:/run/b.sock"}, "unix:/run/a.sock"},
		{[]string{"unix:data/nbd.sock"}, "unix:" + socket},
		{[]string{"0.0.0.0:10809", "[::1]:1"}, "localhost:10809"},
	} {
		if got, err := nbdAddr(c.listens, socket); err != nil || got.String() != c.want {
			t.Errorf("%q: %v, %v; want %s", c.listens, got, err, c.want)
		}
	}
	if _, err := nbdAddr(nil, socket); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Error(err)
	}
}

// TestAttachStaleSocket holds that a socket that a killed server left behind is not taken for one that listens.
func TestAttachStaleSocket(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "lsad-data"), 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "lsad-data", "nbd.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if !answers(socket) {
		t.Error("it listens, and does not seem to")
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if r := lsad(t, dir, "attach", "vol0"); r.code != exitFailed || !strings.Contains(r.stderr, "start it with") {
		t.Errorf("status %d, %s", r.code, r.stderr)
	}
	p := serveIn(t, dir, append(small, "--nbd=127.0.0.1:0")...)
	cmd := newAttach()
	cmd.SetContext(t.Context())
	uri, err := (&target{dir: filepath.Join(dir, "lsad-data")}).exportURI(cmd, "vol0")
	if err != nil || !strings.HasPrefix(uri, "nbd://127.0.0.1:") {
		t.Errorf("%s, %v", uri, err)
	}
	p.stop()
}

// TestAttachUnreachable holds that a connection that was never made is not called lost.
func TestAttachUnreachable(t *testing.T) {
	r := lsad(t, t.TempDir(), "attach", "nbd+unix:///v?socket=/none/nbd.sock")
	if r.code != exitFailed || strings.Contains(r.stderr, "connection lost") {
		t.Errorf("status %d, %s", r.code, r.stderr)
	}
}
