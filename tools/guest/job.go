package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"lsad/tools/guest/wire"
)

// scriptTimeout ends a script that hangs: far longer than anything that a test
// does in an emulated machine, even a busy one.
const scriptTimeout = 10 * time.Minute

// maxOutput bounds what is kept of each of a script's two outputs, in bytes;
// what comes after is dropped.
const maxOutput = 4 << 20

// Output is what a script printed and how it ended.
type Output struct {
	Stdout, Stderr string
	Code           int // exit status
}

// A Job is a script that runs in the guest.
type Job struct {
	vm *VM
	id uint64

	mu             sync.Mutex
	stdout, stderr bytes.Buffer
	exit           *wire.Exit
	err            error
	done           chan struct{} // closed once exit or err is set
}

// Run runs a script with the guest's shell and waits for it and for everything
// that holds its output: a program that is to stay must not write there. The
// error says that the script did not run to its end; an exit status is none.
// It may take ten minutes, or what ctx allows if that is less.
func (vm *VM) Run(ctx context.Context, script string) (Output, error) {
	job, err := vm.Go(script, nil)
	if err != nil {
		return Output{}, err
	}
	return job.Wait(ctx)
}

// Go starts a script, with stdin as its input, and does not wait for it.
func (vm *VM) Go(script string, stdin []byte) (*Job, error) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.gone {
		return nil, ErrPoweredOff
	}
	vm.nextID++
	job := &Job{vm: vm, id: vm.nextID, done: make(chan struct{})}
	vm.jobs[job.id] = job
	if err := vm.enc.Encode(wire.Request{ID: job.id, Script: script, Stdin: stdin}); err != nil {
		delete(vm.jobs, job.id)
		return nil, fmt.Errorf("guest: start a script: %w", err)
	}
	return job, nil
}

// Wait waits until the job ends. If ctx ends first the job is killed, and what
// it had printed is returned with the error.
func (j *Job) Wait(ctx context.Context) (Output, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, scriptTimeout, errors.New("the script took too long"))
	defer cancel()
	select {
	case <-j.done:
	case <-ctx.Done():
		j.Kill()
		return j.Output(), fmt.Errorf("guest: wait for a script: %w", context.Cause(ctx))
	}
	out := j.Output()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return out, fmt.Errorf("guest: script: %w", j.err)
	}
	out.Code = j.exit.Code
	if j.exit.Err != "" {
		return out, fmt.Errorf("guest: script: %s", j.exit.Err)
	}
	return out, nil
}

// Kill kills the job's processes and does not wait for them.
func (j *Job) Kill() {
	j.vm.mu.Lock()
	defer j.vm.mu.Unlock()
	if !j.vm.gone {
		_ = j.vm.enc.Encode(wire.Request{ID: j.id, Kill: true}) // fails only if the guest ends
	}
}

// Done says whether the job has ended.
func (j *Job) Done() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// Output returns what the job has printed so far. Its Code means nothing.
func (j *Job) Output() Output {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Output{Stdout: j.stdout.String(), Stderr: j.stderr.String()}
}

// readEvents hands what the agent says to the jobs, until the guest is gone.
func (vm *VM) readEvents() {
	dec := json.NewDecoder(vm.conn)
	for {
		var ev wire.Event
		if err := dec.Decode(&ev); err != nil {
			vm.end()
			return
		}
		if ev.Hello != nil {
			vm.hello <- *ev.Hello
			continue
		}
		vm.mu.Lock()
		job := vm.jobs[ev.ID]
		if ev.Exit != nil {
			delete(vm.jobs, ev.ID)
		}
		vm.mu.Unlock()
		if job != nil {
			job.handle(ev)
		}
	}
}

// end tells all jobs that the guest is gone.
func (vm *VM) end() {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.gone = true
	close(vm.hello)
	for _, job := range vm.jobs {
		job.mu.Lock()
		job.err = ErrPoweredOff
		close(job.done)
		job.mu.Unlock()
	}
	clear(vm.jobs)
}

func (j *Job) handle(ev wire.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	keep(&j.stdout, ev.Stdout)
	keep(&j.stderr, ev.Stderr)
	if ev.Exit != nil {
		j.exit = ev.Exit
		close(j.done)
	}
}

func keep(b *bytes.Buffer, p []byte) {
	b.Write(p[:min(len(p), maxOutput-b.Len())])
}
