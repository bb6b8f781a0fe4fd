package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stopWait is how long a server may take to end after SIGTERM before it is killed.
const stopWait = 30 * time.Second

// child is a process that we started and will end.
type child struct {
	name string
	cmd  *exec.Cmd
	out  tail
	done chan struct{}
	err  error // of the process, once done is closed
}

// startChild starts a program in a process group of its own, so that a Ctrl-C at the terminal reaches it
// through us and not before its client has ended. If we die it is killed by the kernel.
func startChild(name, program string, args ...string) (*child, error) {
	c := &child{name: name, cmd: exec.Command(program, args...), done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	c.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// exited says why the process is gone, or nil while it runs.
func (c *child) exited() error {
	select {
	case <-c.done:
		return fmt.Errorf("%s ended by itself (%v):\n%s", c.name, c.err, c.out.String())
	default:
		return nil
	}
}

// pause keeps the process from running, resume lets it run again.
func (c *child) pause()  { c.cmd.Process.Signal(unix.SIGSTOP) }
func (c *child) resume() { c.cmd.Process.Signal(unix.SIGCONT) }

// cpuTime is the processor time that the process has taken, user and system.
func (c *child) cpuTime() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.pid()))
	if err != nil {
		return 0
	}
	// The second field is the program's name in brackets, which may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3 // proc_pid_stat(5) counts from 1
	if len(fields) <= stime {
		return 0
	}
	user, _ := strconv.ParseInt(fields[utime], 10, 64)
	system, _ := strconv.ParseInt(fields[stime], 10, 64)
	return time.Duration(user+system) * time.Second / clockTicks
}

// cpuWait is how long threads of the process were ready to run and had no processor.
func (c *child) cpuWait() time.Duration {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", c.pid()))
	if err != nil {
		return 0
	}
	var sum int64
	for _, f := range files {
		// Time on a processor, time waiting for one, number of turns (proc_pid_schedstat(5)); ns.
		if text, err := os.ReadFile(f); err == nil {
			if fields := strings.Fields(string(text)); len(fields) > 1 {
				n, _ := strconv.ParseInt(fields[1], 10, 64)
				sum += n
			}
		}
	}
	return time.Duration(sum)
}

// clockTicks per second in /proc, the same on every Linux that Go runs on.
const clockTicks = 100

// stop ends the process in order, or kills it if it does not end.
func (c *child) stop() error {
	c.cmd.Process.Signal(unix.SIGTERM)
	c.resume()
	select {
	case <-c.done:
		return nil
	case <-time.After(stopWait):
		c.kill()
		return fmt.Errorf("%s did not stop within %v and was killed:\n%s", c.name, stopWait, c.out.String())
	}
}

// kill ends the process as kill -9 does, and waits until it is gone.
func (c *child) kill() {
	c.cmd.Process.Kill()
	<-c.done
}

// awaitGreeting waits until an NBD server greets whoever connects to a unix socket. That it listens is not enough:
// it may do so long before it is ready.
func (c *child) awaitGreeting(ctx context.Context, path string) error {
	for {
		if err := c.greeting(ctx, path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done:
			return c.exited()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// greeting connects, reads the first word that every NBD server sends, and disconnects.
func (c *child) greeting(ctx context.Context, path string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	ended := make(chan struct{})
	defer close(ended)
	go func() { // wakes the read below
		select {
		case <-ctx.Done():
			conn.Close()
		case <-c.done:
			conn.Close()
		case <-ended:
		}
	}()
	var word [8]byte
	if _, err := io.ReadFull(conn, word[:]); err != nil {
		return err
	}
	if string(word[:]) != "NBDMAGIC" {
		return fmt.Errorf("%s greets with %q, which is not NBD", c.name, word)
	}
	return nil
}

// runProgram runs a program to its end and returns what it printed on standard output. When ctx ends it is asked
// to end, and killed if it does not.
func runProgram(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return stdout.Bytes(), ctx.Err()
	}
	if err != nil {
		text := strings.TrimSpace(stderr.String())
		return stdout.Bytes(), fmt.Errorf("%s: %w: %s", program, err, text)
	}
	return stdout.Bytes(), nil
}

// tail keeps the end of what a process prints.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if extra := len(t.buf) - tailBytes; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}

// need says what to install if a program is missing.
func need(program, debianPackage string) error {
	_, err := exec.LookPath(program)
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not installed (apt-get install %s)", program, debianPackage)
	}
	return err
}

// buildProgram builds a command of this module into a folder of dir, with further flags of go build.
func buildProgram(ctx context.Context, dir, pkg string, flags ...string) (string, error) {
	path := filepath.Join(dir, "bin", filepath.Base(pkg))
	fmt.Fprintf(os.Stderr, "building %s\n", pkg)
	// Without C, as the Makefile builds it: the metadata store then has its memory from Go, within Go's limit.
	build := append(append([]string{"CGO_ENABLED=0", "go", "build"}, flags...), "-o", path, pkg)
	if _, err := runProgram(ctx, "env", build...); err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	return path, nil
}
