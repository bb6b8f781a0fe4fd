package guest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"

	"lsad/tools/guest/wire"
)

// fakeGuest makes a VM whose agent is the other end of a pipe.
func fakeGuest(t *testing.T) (*VM, *json.Decoder, *json.Encoder, net.Conn) {
	t.Helper()
	host, agent := net.Pipe()
	vm := &VM{conn: host, enc: json.NewEncoder(host), jobs: map[uint64]*Job{}, hello: make(chan wire.Hello, 1)}
	vm.wg.Go(vm.readEvents)
	t.Cleanup(func() {
		agent.Close()
		vm.wg.Wait()
	})
	return vm, json.NewDecoder(agent), json.NewEncoder(agent), agent
}

// startJob starts a script and takes its request from the pipe.
func startJob(t *testing.T, vm *VM, dec *json.Decoder) (*Job, wire.Request) {
	t.Helper()
	got := make(chan wire.Request, 1)
	go func() {
		var req wire.Request
		if err := dec.Decode(&req); err != nil {
			t.Error(err)
		}
		got <- req
	}()
	job, err := vm.Go("script", nil)
	if err != nil {
		t.Fatal(err)
	}
	return job, <-got
}

func send(t *testing.T, enc *json.Encoder, events ...wire.Event) {
	t.Helper()
	for _, ev := range events {
		if err := enc.Encode(ev); err != nil {
			t.Fatal(err)
		}
	}
}

// TestJobs holds that events reach the job they name, whatever their order,
// and that events of no job harm nobody.
func TestJobs(t *testing.T) {
	vm, dec, enc, _ := fakeGuest(t)
	first, req1 := startJob(t, vm, dec)
	second, req2 := startJob(t, vm, dec)
	send(t, enc,
		wire.Event{ID: req2.ID, Stdout: []byte("two")},
		wire.Event{ID: 999, Stdout: []byte("nobody's")},
		wire.Event{ID: req1.ID, Stderr: []byte("one")},
		wire.Event{ID: req2.ID, Exit: &wire.Exit{Code: 2}},
		wire.Event{ID: req2.ID, Exit: &wire.Exit{Code: 3}},
		wire.Event{ID: req1.ID, Exit: &wire.Exit{Code: -1, Err: "signal: killed"}},
	)
	if out, err := second.Wait(t.Context()); err != nil || out != (Output{Stdout: "two", Code: 2}) {
		t.Errorf("second: %+v, %v", out, err)
	}
	if out, err := first.Wait(t.Context()); err == nil || out.Stderr != "one" {
		t.Errorf("first: %+v, %v", out, err)
	}
}

// TestJobOutputBound holds that a script that never stops printing costs no
// more memory than it may.
func TestJobOutputBound(t *testing.T) {
	vm, dec, enc, _ := fakeGuest(t)
	job, req := startJob(t, vm, dec)
	chunk := []byte(strings.Repeat("x", wire.MaxChunk))
	for range maxOutput/wire.MaxChunk + 3 {
		send(t, enc, wire.Event{ID: req.ID, Stdout: chunk})
	}
	send(t, enc, wire.Event{ID: req.ID, Exit: &wire.Exit{}})
	if out, err := job.Wait(t.Context()); err != nil || len(out.Stdout) != maxOutput {
		t.Errorf("%d bytes kept, %v", len(out.Stdout), err)
	}
}

// TestJobCancel holds that a job that is no longer waited for is killed.
func TestJobCancel(t *testing.T) {
	vm, dec, _, _ := fakeGuest(t)
	job, req := startJob(t, vm, dec)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	cancel(reason)
	killed := make(chan wire.Request, 1)
	go func() {
		var req wire.Request
		if err := dec.Decode(&req); err != nil {
			t.Error(err)
		}
		killed <- req
	}()
	if _, err := job.Wait(ctx); !errors.Is(err, reason) {
		t.Errorf("Wait: %v", err)
	}
	if got := <-killed; !got.Kill || got.ID != req.ID {
		t.Errorf("the agent was asked for %+v", got)
	}
}

// TestGuestGone holds that the end of the guest ends its jobs, and that no new
// one starts.
func TestGuestGone(t *testing.T) {
	vm, dec, _, agent := fakeGuest(t)
	job, _ := startJob(t, vm, dec)
	agent.Close()
	if _, err := job.Wait(t.Context()); !errors.Is(err, ErrPoweredOff) {
		t.Errorf("Wait: %v", err)
	}
	if _, err := vm.Go("script", nil); !errors.Is(err, ErrPoweredOff) {
		t.Errorf("Go: %v", err)
	}
}

// TestConsoleBound holds that a console keeps its end.
func TestConsoleBound(t *testing.T) {
	var c console
	line := strings.Repeat("y", 1<<16)
	for range 100 {
		if _, err := c.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Write([]byte("the end")); err != nil {
		t.Fatal(err)
	}
	got := c.String()
	if len(got) != consoleLimit || !strings.HasSuffix(got, "ythe end") || cap(c.buf) > 8*consoleLimit {
		t.Errorf("kept %d bytes, capacity %d", len(got), cap(c.buf))
	}
}
