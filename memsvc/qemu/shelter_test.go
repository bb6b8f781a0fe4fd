package qemu

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// window is a restore to a destination that waits in the middle of its start; it is interrupted when it was told to run.
type window struct {
	dst    *fakeDest
	told   chan struct{} // it says that it waits
	result chan error
	p      Progress
}

func startWindow(t *testing.T, change func(*RestoreOptions, *fakeDest)) *window {
	t.Helper()
	s := testState()
	w := &window{dst: newFakeDest(t, s), told: make(chan struct{}), result: make(chan error, 1)}
	w.dst.load, w.dst.run = make(chan struct{}), make(chan struct{})
	w.dst.wants = []pageRange{{250, 1}}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	o := RestoreOptions{State: s, RAM: testRAM(s, 4), Dial: w.dst.dial, NoFill: true}
	o.Progress = func(p Progress) {
		switch p.Phase {
		case Running:
			cancel()
		case Interrupted:
			close(w.told)
		}
	}
	if change != nil {
		change(&o, w.dst)
	}
	go func() {
		p, err := Restore(ctx, o)
		w.p = p
		w.result <- err
	}()
	return w
}

// stays holds that the restore goes on, and its connection.
func (w *window) stays(t *testing.T, when string) {
	t.Helper()
	select {
	case err := <-w.result:
		t.Fatalf("%s: it has ended: %v", when, err)
	case <-time.After(50 * time.Millisecond):
	}
	if w.dst.gone.Load() {
		t.Fatalf("%s: the connection has ended", when)
	}
}

func (w *window) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-w.result:
		return err
	case <-time.After(5 * time.Second):
		t.Fatal("it does not end")
		return nil
	}
}

// TestInterruptWaits holds that an interrupt leaves the connection open until the destination has shown that it runs:
// QEMU would end if it broke before.
func TestInterruptWaits(t *testing.T) {
	w := startWindow(t, nil)
	<-w.told
	w.stays(t, "the device state is not loaded")
	close(w.dst.load)
	w.stays(t, "the device state is loaded, and nothing runs")
	close(w.dst.run)
	if err := w.end(t); !errors.Is(err, context.Canceled) || w.p.Owner != Destination || !w.p.Ran || w.dst.gone.Load() {
		t.Errorf("%+v, %v", w.p, err)
	}
}

// TestInterruptAsksMonitor holds that the monitor's word is a sign as well, for a VM that asks for nothing; a page that
// loading the device state needs is none.
func TestInterruptAsksMonitor(t *testing.T) {
	runs := make(chan struct{})
	w := startWindow(t, func(o *RestoreOptions, d *fakeDest) {
		d.asksFirst = true
		close(d.run)
		o.Runs = func(context.Context) error { <-runs; return nil }
	})
	<-w.told
	close(w.dst.load)
	for len(w.dst.came()) == 0 {
		time.Sleep(time.Millisecond)
	}
	w.stays(t, "a device has asked for memory")
	close(runs)
	if err := w.end(t); !errors.Is(err, context.Canceled) || !w.p.Ran {
		t.Errorf("%+v, %v", w.p, err)
	}
}

// TestInterruptedDestinationEnds holds that a destination that ends meanwhile ends the wait.
func TestInterruptedDestinationEnds(t *testing.T) {
	w := startWindow(t, func(_ *RestoreOptions, d *fakeDest) { d.dieAt = "running" })
	<-w.told
	close(w.dst.load)
	close(w.dst.run)
	if err := w.end(t); err == nil || w.p.Owner != Destination || w.p.Ran {
		t.Errorf("%+v, %v", w.p, err)
	}
}

// TestShelter holds what ends it.
func TestShelter(t *testing.T) {
	begin := func(bound time.Duration) (*shelter, context.CancelFunc) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newShelter(ctx, nil, bound)
		t.Cleanup(func() { cancel(); s.end() })
		return s, cancel
	}
	ends := func(s *shelter) error {
		select {
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case <-time.After(5 * time.Second):
			return errors.New("it goes on")
		}
	}
	s, cancel := begin(time.Hour)
	cancel()
	if err := ends(s); err != context.Canceled || s.hold() == nil {
		t.Errorf("before RUN: %v", err)
	}
	s, cancel = begin(time.Hour)
	s.sign() // before it was told to run that means nothing
	if s.hold() != nil || s.proven() {
		t.Error("a sign before RUN was believed")
	}
	s.sign()
	cancel()
	if err := ends(s); err != context.Canceled || !s.proven() {
		t.Errorf("after the sign: %v", err)
	}
	s, cancel = begin(10 * time.Millisecond)
	if err := s.hold(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := ends(s); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "has not shown") || s.proven() {
		t.Errorf("without a sign: %v", err)
	}
}

// TestRunsIsTold holds that progress says so when the destination has shown that it runs, and not before: who hears
// no more after that has to know.
func TestRunsIsTold(t *testing.T) {
	s := testState()
	dst := newFakeDest(t, s)
	dst.run, dst.wants = make(chan struct{}), []pageRange{{250, 1}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	late := time.AfterFunc(5*time.Second, cancel)
	defer late.Stop()
	var told []bool
	o := RestoreOptions{State: s, RAM: testRAM(s, 4), Dial: dst.dial, NoFill: true}
	o.Progress = func(p Progress) {
		if p.Phase != Running {
			return
		}
		if told = append(told, p.Ran); p.Ran {
			cancel()
		} else if len(told) == 1 {
			close(dst.run)
		}
	}
	if _, err := Restore(ctx, o); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(told) < 2 || told[0] || !told[len(told)-1] {
		t.Errorf("that it runs: %v", told)
	}
}
