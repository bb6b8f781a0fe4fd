package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lsad/memsvc/qemu/qmp"
)

// saying is a command that runs, and what it says.
type saying struct {
	cmd *exec.Cmd
	mu  sync.Mutex
	err bytes.Buffer
	out bytes.Buffer
}

func (s *saying) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err.Write(p)
}

func (s *saying) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err.String()
}

func begin(t *testing.T, dir string, args ...string) *saying {
	t.Helper()
	s := &saying{cmd: exec.Command(lsadBinary, args...)}
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = dir, &s.out, s
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill() }) // it has ended
	return s
}

// until waits until it has said text.
func (s *saying) until(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(s.said(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not say %q: %s", text, s.said())
		}
	}
}

// ends returns its exit code, and what it has printed.
func (s *saying) ends(t *testing.T) (code int, printed struct {
	Owner, Error string
	MissingPages int64 `json:"missing_pages"`
}) {
	t.Helper()
	late := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
	_ = s.cmd.Wait() // the code says how
	if err := json.Unmarshal(s.out.Bytes(), &printed); err != nil {
		t.Fatalf("%v: %s%s", err, &s.out, s.said())
	}
	return s.cmd.ProcessState.ExitCode(), printed
}

func waitRunning(t *testing.T, c *qmp.Client) {
	t.Helper()
	for deadline := time.Now().Add(patience); runState(t, c) != "running"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the VM does not run")
		}
	}
}

// TestServerGone holds what a restore and an ingest say whose server has ended before it said a word: it may have begun.
func TestServerGone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "lsad-data"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "lsad-data", "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 64<<10)) // whatever it is
			conn.Close()
		}
	}()
	s := begin(t, dir, "image", "restore", "vm", "--qmp", "a.qmp", "--json")
	if code, printed := s.ends(t); code != 3 || printed.Owner != "destination" || !strings.Contains(printed.Error, "not known whether") {
		t.Errorf("exit code %d, %+v; %s", code, printed, s.said())
	}
	if r := lsad(t, dir, "image", "ingest", "vm", "--qmp", "a.qmp"); r.code != 1 || !strings.Contains(r.stderr, "may stand still") {
		t.Errorf("%+v", r)
	}
}

// lookAtBIOS has a destination ask for a page, which shows the source that it has the VM, if its processor has not yet.
func lookAtBIOS(t *testing.T, m *qmp.Client) {
	t.Helper()
	if err := m.Execute(t.Context(), "human-monitor-command", map[string]string{"command-line": "xp /1 0xffff0"}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestRestoreEnds holds what a restore says in the end, by its exit code and otherwise: who has the VM.
func TestRestoreEnds(t *testing.T) {
	needUserfaultfd(t)
	dir := t.TempDir()
	machine(t, dir, "a.qmp")
	p := serveIn(t, dir, small...)
	must(t, dir, "image", "ingest", "vm", "--qmp", "a.qmp")
	tests := []struct {
		name  string
		to    bool // there is no monitor
		args  []string
		quit  bool // the destination ends
		code  int
		owner string
		says  string
		error string
	}{
		{"no fill interrupted", false, []string{"--no-fill"}, false, 0, "destination", "runs at the destination", ""},
		{"interrupted", false, []string{"--rate", "16KiB"}, false, 3, "destination", "runs at the destination", "--resume"},
		{"ended", false, []string{"--no-fill"}, true, 1, "nobody", "runs at the destination", "QEMU has ended"},
		{"ended without a monitor", true, []string{"--no-fill"}, true, 0, "destination", "waiting until it listens at unix:", ""},
		{"ended without a monitor with fill", true, []string{"--rate", "16KiB"}, true, 3, "destination", "waiting until it listens at unix:", "--resume"},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			name := string(rune('b'+i)) + ".qmp"
			dst := machine(t, dir, name, "-incoming", "defer")
			args := append([]string{"image", "restore", "vm", "--json"}, test.args...)
			if test.to {
				uri := "unix:" + filepath.Join(dir, name+".in")
				if err := dst.Execute(t.Context(), "migrate-set-capabilities", map[string]any{"capabilities": []any{map[string]any{"capability": "postcopy-ram", "state": true}}}, nil); err != nil {
					t.Fatal(err)
				}
				if err := dst.Execute(t.Context(), "migrate-incoming", map[string]string{"uri": uri}, nil); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--to", uri)
			} else {
				args = append(args, "--qmp", name)
			}
			s := begin(t, dir, args...)
			waitRunning(t, dst)
			s.until(t, "runs at the destination")
			if test.quit {
				lookAtBIOS(t, dst)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				_ = dst.Execute(ctx, "quit", nil, nil) // it may end before it answers
			}
			s.until(t, test.says)
			if test.owner == "destination" {
				if err := s.cmd.Process.Signal(unix.SIGINT); err != nil {
					t.Fatal(err)
				}
			}
			code, printed := s.ends(t)
			if code != test.code || printed.Owner != test.owner || !strings.Contains(printed.Error, test.error) || (printed.Error == "") != (test.code == 0) {
				t.Errorf("exit code %d, %+v; %s", code, printed, s.said())
			}
			if (printed.MissingPages > 0) != (code == 0) {
				t.Errorf("%d pages are missing", printed.MissingPages)
			}
			if test.owner == "destination" && !test.to {
				// It listens: one that waits for memory would not obey who opens its monitor now.
				must(t, dir, "image", "restore", "vm", "--to", "unix:"+name+".incoming", "--resume")
				r := lsad(t, dir, "image", "restore", "vm", "--qmp", name, "--resume")
				if r.code != 3 || !strings.Contains(r.stderr, "nothing to resume") {
					t.Errorf("resumed when it has everything: %+v", r)
				}
			}
		})
	}
	must(t, dir, "image", "delete", "vm") // nobody has it open
	p.stop()
}
