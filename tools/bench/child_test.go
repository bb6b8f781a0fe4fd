package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// alive says whether a process exists.
func alive(pid int) bool { return unix.Kill(pid, 0) == nil }

func TestChildStops(t *testing.T) {
	for name, end := range map[string]func(*child) error{
		"stop":              (*child).stop,
		"kill":              func(c *child) error { c.kill(); return nil },
		"stop while paused": func(c *child) error { c.pause(); return c.stop() },
	} {
		c, err := startChild("sleeper", "sleep", "1000")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.exited(); err != nil {
			t.Errorf("%s: it runs, and %v", name, err)
		}
		if err := end(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if alive(c.pid()) {
			t.Errorf("%s: process %d is still there", name, c.pid())
		}
	}
}

func TestChildThatEnds(t *testing.T) {
	c, err := startChild("server", "sh", "-c", "echo no such device >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	err = c.awaitGreeting(t.Context(), filepath.Join(t.TempDir(), "none.sock"))
	if err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("got %v, want what it printed", err)
	}
}

func TestRunProgramInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := runProgram(ctx, "sleep", "1000"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var k tail
	k.Write(bytes.Repeat([]byte("x"), tailBytes))
	k.Write([]byte("the end"))
	if got := k.String(); len(got) != tailBytes || !strings.HasSuffix(got, "xthe end") {
		t.Errorf("%d bytes kept, ending in %q", len(got), got[len(got)-10:])
	}
}

func TestField(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	if err := os.WriteFile(path, []byte("Name:\tx\nVmRSS:\t  1234 kB\nVmRSS:\t9 kB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := field(path, "VmRSS"); got != "1234 kB" {
		t.Errorf("got %q", got)
	}
	if got := field(path, "Vm"); got != "" {
		t.Errorf("a field that is not there: got %q", got)
	}
}

// TestComparison runs the whole of it, far too short to measure anything.
func TestComparison(t *testing.T) {
	if os.Getenv("LSAD_TEST") != "full" {
		t.Skip("builds programs and runs four servers: only with LSAD_TEST=full")
	}
	for program, pkg := range map[string]string{"fio": "fio", "nbdkit": "nbdkit", "qemu-nbd": "qemu-utils"} {
		if err := need(program, pkg); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	cmd := newRoot()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"nbd", "--dir", dir, "--size", "16MiB", "--warm", "1MiB", "--rounds", "1", "--runtime", "100ms"})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "met\n"); n != 10 {
		t.Errorf("%d verdicts, want 10, in:\n%s", n, &out)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
