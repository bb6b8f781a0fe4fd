package main

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"lsad/tools/guest/wire"
)

// start runs a script in a process group of its own and returns at once; what
// it prints and how it ends become events.
func (a *agent) start(req wire.Request) {
	cmd := exec.Command("/bin/sh", "-c", req.Script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdin = bytes.NewReader(req.Stdin)
	cmd.Stdout = output{a, func(p []byte) wire.Event { return wire.Event{ID: req.ID, Stdout: p} }}
	cmd.Stderr = output{a, func(p []byte) wire.Event { return wire.Event{ID: req.ID, Stderr: p} }}
	if err := cmd.Start(); err != nil {
		a.send(wire.Event{ID: req.ID, Exit: &wire.Exit{Code: -1, Err: err.Error()}})
		return
	}
	a.mu.Lock()
	a.jobs[req.ID] = cmd.Process.Pid
	a.mu.Unlock()
	go func() {
		err := cmd.Wait()
		a.mu.Lock()
		delete(a.jobs, req.ID)
		a.mu.Unlock()
		a.send(wire.Event{ID: req.ID, Exit: exitOf(err)})
	}()
}

// kill ends a job's process group. A process that waits for a device in the
// kernel stays until the device answers; the host does not wait for it.
func (a *agent) kill(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if pid, ok := a.jobs[id]; ok {
		_ = unix.Kill(-pid, unix.SIGKILL) // it may just have ended by itself
	}
}

func exitOf(err error) *wire.Exit {
	var ee *exec.ExitError
	switch {
	case err == nil:
		return &wire.Exit{}
	case errors.As(err, &ee) && ee.Exited():
		return &wire.Exit{Code: ee.ExitCode()}
	default:
		return &wire.Exit{Code: -1, Err: err.Error()}
	}
}

// output sends what a job writes, in bounded pieces.
type output struct {
	a    *agent
	wrap func([]byte) wire.Event
}

var _ io.Writer = output{}

func (o output) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), wire.MaxChunk)
		o.a.send(o.wrap(rest[:n]))
		rest = rest[n:]
	}
	return len(p), nil
}
