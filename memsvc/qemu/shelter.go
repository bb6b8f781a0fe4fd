package qemu

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// settlePatience is how long an interrupt waits for the sign that the destination runs.
const settlePatience = 10 * time.Second

// shelter keeps a connection from the end of a context while that would cost the VM.
//
// The package that starts a VM is read by two threads of QEMU: LISTEN has one wait for pages on the connection, the
// other loads the device state and comes to RUN last. If the connection ends between the two, the first one exits the
// process (savevm.c, postcopy_ram_listen_thread); from RUN on it waits for another connection instead. So from when
// RUN is on its way until there is a sign that it was obeyed, ctx does not end with its parent. The signs:
//
//   - a page is asked for after the answer to the ping right before RUN. The thread that answers goes on to RUN without
//     a pause, and asks for nothing between; no other one runs the VM's devices or processors before.
//   - QEMU's monitor says that it no longer waits for a migration, if there is one to ask.
//
// The answer itself is none: a thread can lose its processor right behind it.
type shelter struct {
	parent context.Context
	ctx    context.Context // what the connection and its user obey
	cancel context.CancelCauseFunc
	runs   func(ctx context.Context) error // waits until the destination runs, by its monitor; may be nil
	asked  chan struct{}                   // closed when parent ended and ctx did not
	bound  time.Duration
	stop   func() bool
	wg     sync.WaitGroup

	mu    sync.Mutex
	held  bool // RUN is on its way
	ran   bool // there was a sign
	over  bool // parent has ended
	timer *time.Timer
}

func newShelter(parent context.Context, runs func(context.Context) error, bound time.Duration) *shelter {
	s := &shelter{parent: parent, runs: runs, asked: make(chan struct{}), bound: bound}
	s.start()
	return s
}

// newResumption is a shelter for a connection on which a VM is resumed that had lost its source: QEMU 7.2 ends if
// that breaks before it has said that it goes on (its state is POSTCOPY_RECOVER then, and postcopy_pause_incoming takes it
// for resumed). It holds from the beginning, also where parent has ended: the connection is there.
func newResumption(parent context.Context, bound time.Duration) *shelter {
	s := &shelter{parent: parent, asked: make(chan struct{}), bound: bound, held: true}
	s.start()
	return s
}

func (s *shelter) start() {
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(s.parent))
	s.wg.Add(1)
	s.stop = context.AfterFunc(s.parent, func() {
		defer s.wg.Done()
		s.ended()
	})
}

// hold begins the time in which ctx outlives its parent; it fails if that has ended.
func (s *shelter) hold() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parent.Err() != nil {
		return context.Cause(s.parent)
	}
	s.held = true
	return nil
}

// ended is called when parent has.
func (s *shelter) ended() {
	s.mu.Lock()
	s.over = true
	wait := s.held && !s.ran
	if wait {
		s.timer = time.AfterFunc(s.bound, func() {
			s.cancel(fmt.Errorf("%w, and for %v the destination has not shown that it runs", context.Cause(s.parent), s.bound))
		})
		close(s.asked)
	}
	s.mu.Unlock()
	switch {
	case !wait:
		s.cancel(context.Cause(s.parent))
	case s.runs != nil && s.runs(s.ctx) == nil:
		s.sign()
	}
}

// sign says that the destination runs.
func (s *shelter) sign() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ran || !s.held {
		return
	}
	s.ran = true
	if s.over {
		s.cancel(context.Cause(s.parent))
	}
}

// proven says whether the destination has shown that it runs.
func (s *shelter) proven() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ran
}

// end ends ctx, and what the shelter has begun.
func (s *shelter) end() {
	if s.stop() {
		s.wg.Done()
	}
	s.cancel(nil)
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
}
