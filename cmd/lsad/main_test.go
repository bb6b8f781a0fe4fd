package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lsad/server/admin"
)

// patience is how long anything may take: only what hangs takes nearly as long, on a machine as busy as may be.
const patience = 2 * time.Minute

// lsadBinary is the program under test, built once.
var lsadBinary string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lsad-cmd-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	lsadBinary = filepath.Join(dir, "lsad")
	if err := os.Setenv("RUNTIME_DIRECTORY", filepath.Join(dir, "run")); err != nil { // nothing of a test stays in /run
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	build := exec.Command("go", "build", raceFlag, "-o", lsadBinary, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build lsad:", err)
		return 1
	}
	return m.Run()
}

// needTool skips the test where a program is missing.
func needTool(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

// oneByOne marks a test of commands that come one after the other and end at once, most of them in an error. The race
// detector would see nothing in it, and starts programs five times as slowly.
func oneByOne(t *testing.T) {
	t.Helper()
	if race {
		t.Skip("nothing in it runs beside anything else")
	}
}

// raced marks a test in which nothing runs beside anything that does not do so in another one as well, which the race
// detector sees.
func raced(t *testing.T, in string) {
	t.Helper()
	if race {
		t.Skipf("what runs beside what in it does so in %s too", in)
	}
}

// onlyFull skips a test that starts many programs one by one, unless all is to be run.
func onlyFull(t *testing.T) {
	t.Helper()
	if os.Getenv("LSAD_TEST") != "full" {
		t.Skip("takes long: set LSAD_TEST=full to run it")
	}
}

// result is what a program said, and how it ended.
type result struct {
	stdout, stderr string
	code           int
}

// lsad runs the program in a directory to its end.
func lsad(t *testing.T, dir string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, lsadBinary, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must runs the program and fails the test unless it succeeds.
func must(t *testing.T, dir string, args ...string) string {
	t.Helper()
	r := lsad(t, dir, args...)
	if r.code != 0 {
		t.Fatalf("lsad %s: exit code %d: %s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// mustJSON decodes what a command prints with --json.
func mustJSON[T any](t *testing.T, dir string, args ...string) (v T) {
	t.Helper()
	out := must(t, dir, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("lsad %v --json: %v in %q", args, err, out)
	}
	return v
}

// sh runs a shell command in a directory and returns what it prints.
func sh(t *testing.T, dir, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustSh(t *testing.T, dir, command string) string {
	t.Helper()
	out, err := sh(t, dir, command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// small are flags for an array that takes little room and time.
var small = []string{
	"--segment-size=1MiB", "--map-cache=16MiB", "--http=127.0.0.1:0",
	"--device=lsad-data/d0:64MiB", "--device=lsad-data/d1:64MiB", "--device=lsad-data/d2:64MiB",
	"--volume=vol0:128MiB",
}

// tiny are flags for an array that is quickly copied or filled.
var tiny = []string{
	"--segment-size=64KiB", "--map-cache=16MiB", "--http=127.0.0.1:0",
	"--device=lsad-data/d0:8MiB", "--device=lsad-data/d1:8MiB", "--device=lsad-data/d2:8MiB",
	"--volume=vol0:16MiB",
}

// again are flags for a later start of the same array.
var again = []string{"--map-cache=16MiB", "--http=127.0.0.1:0"}

// process is a running server.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string // its working directory
	logs   string // the directory with what it prints, in files: there it is as soon as it was printed
	notify *net.UnixConn
	done   chan struct{}
}

// serve starts a server and waits until it says that it is ready.
func serveIn(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := launch(t, dir, nil, exec.Command(lsadBinary, append([]string{"serve"}, args...)...))
	p.waitNotify("READY=1")
	return p
}

// launch starts a server process with a socket for its notifications.
func launch(t *testing.T, dir string, env []string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, dir: dir, logs: t.TempDir(), done: make(chan struct{})}
	socket := filepath.Join(p.logs, "notify")
	var err error
	if p.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, p.create("stdout"), p.create("stderr")
	cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+socket), env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		cmd.Wait()
		p.notify.Close()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("server log:\n%s", p.stderr())
		}
	})
	return p
}

func (p *process) create(name string) *os.File {
	p.t.Helper()
	f, err := os.Create(filepath.Join(p.logs, name))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { f.Close() })
	return f
}

func (p *process) stdout() string { return p.printed("stdout") }
func (p *process) stderr() string { return p.printed("stderr") }

func (p *process) printed(name string) string {
	text, err := os.ReadFile(filepath.Join(p.logs, name))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// waitNotify waits for a notification with the line.
func (p *process) waitNotify(line string) {
	p.t.Helper()
	p.notify.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	for {
		n, err := p.notify.Read(buf)
		if err != nil {
			p.kill()
			p.t.Fatalf("no %s from the server: %v\n%s", line, err, p.stderr())
		}
		for got := range strings.Lines(string(buf[:n])) {
			if strings.TrimSpace(got) == line {
				return
			}
		}
	}
}

// kill ends the process at once.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// stop ends the process as an operator does and fails unless it ends cleanly.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		p.kill()
		p.t.Fatalf("the server did not stop:\n%s", p.stderr())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Fatalf("the server stopped with code %d:\n%s", code, p.stderr())
	}
}

func (p *process) status() admin.Status {
	p.t.Helper()
	return mustJSON[admin.Status](p.t, p.dir, "status")
}

// uri of an export at the socket in the data directory.
func uri(export string) string { return "'nbd+unix:///" + export + "?socket=lsad-data/nbd.sock'" }
