package nbdsource

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"lsad/internal/nbdclient"
	"lsad/kvmhook"
)

const (
	leastPause = 20 * time.Millisecond
	mostPause  = 2 * time.Second
	// lostTries is how often a read has to fail at the server before its content counts as lost, and lostPause the time
	// between.
	lostTries = 3
	lostPause = 100 * time.Millisecond
)

// Options are settings of a Source.
type Options struct {
	// Connections to the server, at least 1. Default 4.
	Connections int
	// Timeout is how long an outage may last, from when nothing came any more; 0 means for ever.
	Timeout time.Duration
	// StallTimeout is how long a server may be silent before a connection counts as lost. Default 10 s, and at most half
	// of Timeout.
	StallTimeout time.Duration
	Logger       *slog.Logger
}

// Source is an export. It implements kvmhook.Identified.
type Source struct {
	target nbdclient.Target
	o      Options
	info   nbdclient.Info // of the first connection; every other has to agree with it
	id     identity
	links  []*link
	next   atomic.Uint64 // of links[1:], in turn
	slow   sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc

	reconnects atomic.Int64
	urgents    sync.Pool // of *urgent

	mu    sync.Mutex
	since time.Time // the outage began; zero while there is none
	why   error     // the newest failure of the outage that is not just the end of its time
}

// Open connects to an export once; the other connections follow when they are needed. Here an outage is an error at
// once.
func Open(ctx context.Context, target nbdclient.Target, o Options) (*Source, error) {
	if o.Connections <= 0 {
		o.Connections = 4
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{target: target, o: o}
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	c, err := target.Dial(ctx, nbdclient.ClientOptions{StallTimeout: s.stall()})
	if err != nil {
		return nil, err
	}
	s.info = c.Info()
	s.id = identify(s.info.Description, s.info.ReadOnly())
	if b := s.info.MinBlock; b > 4096 {
		c.Close()
		return nil, fmt.Errorf("%v: %w: it has blocks of %d bytes, pages have 4096", target, kvmhook.ErrSource, b)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.urgents.New = func() any { return &urgent{s: s} }
	for range o.Connections {
		l := &link{s: s, dial: make(chan struct{}, 1)}
		l.dial <- struct{}{}
		s.links = append(s.links, l)
	}
	s.links[0].client.Store(c)
	return s, nil
}

// Stop has every read fail, those under way too, and does not wait for that.
func (s *Source) Stop() {
	s.cancel()
	for _, l := range s.links {
		if c := l.client.Load(); c != nil {
			c.Stop()
		}
	}
}

// Close ends every connection. Nobody may use the source any more, or begin to.
func (s *Source) Close() error {
	s.Stop()
	for _, l := range s.links {
		<-l.dial // nobody connects, or will
		if c := l.client.Load(); c != nil {
			c.Close()
		}
		l.dial <- struct{}{}
	}
	s.slow.Wait()
	return nil
}

// Size implements kvmhook.Source.
func (s *Source) Size() int64 { return s.info.Size }

// Info is what the server told.
func (s *Source) Info() nbdclient.Info { return s.info }

// Reconnects is how often a connection was made anew.
func (s *Source) Reconnects() int64 { return s.reconnects.Load() }

// Outage is how long the server has been out of reach, 0 if it is not.
func (s *Source) Outage() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		return 0
	}
	return time.Since(s.since)
}

// Zeros implements kvmhook.Source. Of a server without block status nothing is known to be zeros.
func (s *Source) Zeros(ctx context.Context, fn func(off, n int64)) error {
	if !s.info.Allocation {
		s.o.Logger.Warn("the server does not tell where the image has holes: every page will be fetched")
		return nil
	}
	var extents []nbdclient.Extent
	for off := int64(0); off < s.info.Size; {
		err := s.try(ctx, s.links[0], func(c *nbdclient.Client) (err error) {
			n := s.info.Size - off
			extents, err = c.BlockStatus(ctx, off, n-n%int64(s.info.MinBlock), extents[:0])
			return err
		})
		if err != nil {
			return err
		}
		for _, e := range extents {
			if e.Zero {
				fn(off, e.Length)
			}
			off += e.Length
		}
	}
	return nil
}

// ReadAt implements kvmhook.Source.
func (s *Source) ReadAt(ctx context.Context, p []byte, off int64) error {
	l := s.links[0]
	if n := len(s.links) - 1; n > 0 {
		l = s.links[1+s.next.Add(1)%uint64(n)]
	}
	return s.readThrough(ctx, l, p, off)
}

func (s *Source) readThrough(ctx context.Context, l *link, p []byte, off int64) error {
	return s.try(ctx, l, func(c *nbdclient.Client) error { return c.ReadAt(ctx, p, off) })
}

// urgent is a read that a guest waits for.
type urgent struct {
	s    *Source
	ctx  context.Context
	p    []byte
	off  int64
	then kvmhook.Completion
	// began is when it was asked for.
	began time.Time
}

// Start implements kvmhook.Source.
func (s *Source) Start(ctx context.Context, p []byte, off int64, then kvmhook.Completion) {
	u := s.urgents.Get().(*urgent)
	u.ctx, u.p, u.off, u.then, u.began = ctx, p, off, then, time.Now()
	if c := s.links[0].client.Load(); c == nil || !c.Start(p, off, u) {
		u.slowly(nil)
	}
}

// Done implements nbdclient.Completion.
func (u *urgent) Done(err error) {
	if err != nil {
		u.slowly(err)
		return
	}
	u.tell(nil)
}

// slowly does what is left to do where waiting does no harm. err is why it was not done yet, if it was tried.
func (u *urgent) slowly(err error) {
	u.s.slow.Go(func() {
		if err != nil && judge(err) == outage && u.s.ctx.Err() == nil {
			if err := u.s.unreached(u.s.unheard(u.began), err); err != nil {
				u.tell(err)
				return
			}
		}
		u.tell(u.s.readThrough(u.ctx, u.s.links[0], u.p, u.off))
	})
}

func (u *urgent) tell(err error) {
	s, then := u.s, u.then
	*u = urgent{s: s}
	s.urgents.Put(u)
	then.Done(err)
}
