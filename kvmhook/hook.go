package kvmhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"lsad/kvmhook/uffd"
)

// Options are what a Hook is made of.
type Options struct {
	Source       Source              // required
	SourceStatus func() SourceStatus // how it is, for the status; may be nil
	Logger       *slog.Logger

	// NoFill leaves out the background fill, and what is fetched around a fault: only what is touched is fetched, a page
	// at a time.
	NoFill bool
	// FillWorkers is how many reads of the background fill are under way at once. Default 3.
	FillWorkers int
	// WorkingSet is what to fill first; nil for nothing.
	WorkingSet *WorkingSet
	// Record remembers the order of first touches, for which the background fill is left out too.
	Record bool

	// Keep is given the userfaultfd of the VMM and a memory file, which stay the hook's, and has somebody else keep them
	// open in case that it is killed. nil: nobody does.
	Keep func(userfault, state int) error
	// Resume is what was kept of a VM, to go on with instead of waiting for one.
	Resume *Kept

	// afterRead lets a test act between the reading of events and their effect.
	afterRead func(*uffd.Messages)
	// sampleEvery and sampleSeed let a test hold back more than one page of 256, and know which; after is time.After.
	sampleEvery int
	sampleSeed  uint64
	after       func(time.Duration) <-chan time.Time
	// killed has a session end as if its process was killed, pages that are held back included.
	killed bool
}

// Hook serves one image to one VMM.
type Hook struct {
	o     Options
	log   *slog.Logger
	zeros bitmap
	began time.Time
	stats counters

	mu       sync.Mutex
	session  *session // nil until a VMM came
	recorder recorder
}

// New asks the source where the image has holes, and returns a hook that can serve it.
func New(ctx context.Context, o Options) (*Hook, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.FillWorkers <= 0 {
		o.FillWorkers = 3
	}
	if o.after == nil {
		o.after = time.After
	}
	size := o.Source.Size()
	if size <= 0 || size >= maxAddress {
		return nil, fmt.Errorf("%w: an image of %d bytes", ErrSource, size)
	}
	if o.WorkingSet != nil {
		if err := o.WorkingSet.validate(size); err != nil {
			return nil, err
		}
	}
	h := &Hook{o: o, log: o.Logger, zeros: newBitmap(size), began: time.Now()}
	err := o.Source.Zeros(ctx, func(off, n int64) { h.zeros.setRange(off, n, size) })
	if err != nil {
		return nil, fmt.Errorf("where the image has holes: %w", err)
	}
	return h, nil
}

// maxStrangers bounds the connections that have not finished their handshake.
const maxStrangers = 16

// Serve waits on l for a VMM, serves it, and returns nil when its process has ended. What connects and speaks
// something else is logged and disconnected; so is a second VMM. Errors are the context's, or ErrSource, ErrMemory:
// then the guest stops at the next page that it touches, and cannot go on; unless it was kept, for another hook. What is
// to be resumed and cannot be is ErrNotKept. Serve closes l.
func (h *Hook) Serve(ctx context.Context, l *net.UnixListener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	if from := h.o.Resume; from != nil {
		s, err := h.resume(from)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		h.mu.Lock()
		h.session = s
		h.mu.Unlock()
		wg.Go(func() { cancel(s.run(ctx, nil)) })
	}
	var strangers atomic.Int32
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() == nil {
				cancel(fmt.Errorf("accept a VMM: %w", err))
			}
			break
		}
		if strangers.Add(1) > maxStrangers {
			strangers.Add(-1)
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer conn.Close()
			s := h.welcome(ctx, conn)
			strangers.Add(-1)
			if s != nil {
				cancel(s.run(ctx, conn))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, errGone) {
		return err
	}
	return nil
}

// welcome does the handshake, and returns a session if this is the VMM to serve.
func (h *Hook) welcome(ctx context.Context, conn *net.UnixConn) *session {
	regions, fd, err := receive(ctx, conn)
	if err == nil {
		if err = checkRegions(regions, h.o.Source.Size()); err == nil {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.session == nil {
				h.session = newSession(h, fd, regions, h.keep(fd, regions))
				return h.session
			}
			err = fmt.Errorf("%w: another VMM is served already; start a hook for each", ErrHandshake)
		}
		fd.Close()
	}
	if ctx.Err() == nil {
		h.log.Warn("a connection was refused", "error", err)
	}
	return nil
}
