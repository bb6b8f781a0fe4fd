package vmmtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a running VMM.
type Process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer
	ended  chan struct{}

	mu      sync.Mutex
	id      int
	waiting map[int]chan Answer
}

// ErrEnded says that the VMM is no more.
var ErrEnded = errors.New("the VMM has ended")

// Start starts a VMM, which is killed if this process dies.
func Start() (*Process, error) {
	cmd := exec.Command("/proc/self/exe")
	v := &Process{cmd: cmd, ended: make(chan struct{}), waiting: make(map[int]chan Answer)}
	cmd.Env = append(os.Environ(), env+"=1")
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.Stderr = &v.stderr
	var err error
	if v.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go v.answers(stdout)
	return v, nil
}

// answers hands out what the VMM says, until it ends.
func (v *Process) answers(from io.Reader) {
	dec := json.NewDecoder(from)
	for {
		var a Answer
		if err := dec.Decode(&a); err != nil {
			break
		}
		v.mu.Lock()
		c := v.waiting[a.ID]
		delete(v.waiting, a.ID)
		v.mu.Unlock()
		if c != nil {
			c <- a
		}
	}
	v.cmd.Wait()
	close(v.ended)
}

// Kill ends the VMM and waits until it has ended.
func (v *Process) Kill() {
	v.cmd.Process.Kill()
	<-v.ended
}

// Ended is closed when the VMM has ended.
func (v *Process) Ended() <-chan struct{} { return v.ended }

// State is how it ended, and what it said last.
func (v *Process) State() (*os.ProcessState, string) { return v.cmd.ProcessState, v.stderr.String() }

// Begin gives an order and returns where its answer comes.
func (v *Process) Begin(o Order) (<-chan Answer, error) {
	c := make(chan Answer, 1)
	v.mu.Lock()
	v.id++
	o.ID = v.id
	v.waiting[o.ID] = c
	v.mu.Unlock()
	return c, json.NewEncoder(v.stdin).Encode(o)
}

// Await waits for an answer.
func (v *Process) Await(c <-chan Answer, patience time.Duration) (Answer, error) {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case a := <-c:
		if a.Err != "" {
			return a, errors.New(a.Err)
		}
		return a, nil
	case <-v.ended:
		return Answer{}, fmt.Errorf("%w: %v", ErrEnded, v.cmd.ProcessState)
	case <-t.C:
		return Answer{}, fmt.Errorf("no answer for %v", patience)
	}
}

// Do gives an order and waits for its answer.
func (v *Process) Do(o Order, patience time.Duration) (Answer, error) {
	c, err := v.Begin(o)
	if err != nil {
		return Answer{}, err
	}
	return v.Await(c, patience)
}
