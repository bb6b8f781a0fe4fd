package nbdsource

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
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
	// Timeout is how long an outage may last; 0 means for ever.
	Timeout time.Duration
	// StallTimeout is how long a server may be silent before a connection counts as lost. Default 10 s.
	StallTimeout time.Duration
	Logger       *slog.Logger
}

// Source is an export. It implements kvmhook.Source.
type Source struct {
	target nbdclient.Target
	o      Options
	info   nbdclient.Info
	links  []*link
	next   atomic.Uint64 // of links[1:], in turn
	slow   sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc

	reconnects atomic.Int64
	urgents    sync.Pool // of *urgent

	mu    sync.Mutex
	since time.Time // the outage began; zero while there is none
}

// link is one connection that is made anew when it fails.
type link struct {
	s      *Source
	client atomic.Pointer[nbdclient.Client] // nil while there is none
	dial   chan struct{}                    // holds one token: who has it connects
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
	c, err := target.Dial(ctx, nbdclient.ClientOptions{StallTimeout: o.StallTimeout})
	if err != nil {
		return nil, err
	}
	s := &Source{target: target, o: o, info: c.Info()}
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

// Description is what the server says now of the export.
func (s *Source) Description() string {
	if c := s.links[0].client.Load(); c != nil {
		return c.Info().Description
	}
	return s.info.Description
}

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
}

// Start implements kvmhook.Source.
func (s *Source) Start(ctx context.Context, p []byte, off int64, then kvmhook.Completion) {
	u := s.urgents.Get().(*urgent)
	u.ctx, u.p, u.off, u.then = ctx, p, off, then
	if c := s.links[0].client.Load(); c == nil || !c.Start(p, off, u) {
		u.slowly()
	}
}

// Done implements nbdclient.Completion.
func (u *urgent) Done(err error) {
	if err != nil {
		u.slowly()
		return
	}
	u.tell(nil)
}

// slowly does what is left to do where waiting does no harm.
func (u *urgent) slowly() {
	u.s.slow.Go(func() { u.tell(u.s.readThrough(u.ctx, u.s.links[0], u.p, u.off)) })
}

func (u *urgent) tell(err error) {
	s, then := u.s, u.then
	*u = urgent{s: s}
	s.urgents.Put(u)
	then.Done(err)
}

// try does something with a connection, again and again until it is done, fails for good, or the outage has lasted
// too long.
func (s *Source) try(ctx context.Context, l *link, fn func(c *nbdclient.Client) error) error {
	pause, refused := leastPause, 0
	for {
		c, err := l.get(ctx)
		if err == nil {
			if err = fn(c); err == nil {
				s.reached()
				return nil
			}
		}
		switch kind := judge(err); {
		case s.ctx.Err() != nil:
			return fmt.Errorf("%w: closed", kvmhook.ErrSource)
		case ctx.Err() != nil:
			return ctx.Err()
		case kind == final:
			return fmt.Errorf("%v: %w: %w", s.target, kvmhook.ErrSource, err)
		case kind == damaged:
			s.reached()
			if refused++; refused == lostTries {
				return fmt.Errorf("%v: %w: %w", s.target, kvmhook.ErrLost, err)
			}
			pause = lostPause
		default:
			if err := s.unreached(err); err != nil {
				return err
			}
		}
		if err := s.wait(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, mostPause)
	}
}

// kind says what an error means for what was tried.
type kind int

const (
	outage  kind = iota // it may work later, perhaps over another connection
	damaged             // the server has the content no more, it says
	final
)

func judge(err error) kind {
	var remote *nbdclient.RemoteError
	switch {
	case errors.As(err, &remote):
		switch remote.Errno {
		case syscall.EIO:
			return damaged
		case syscall.ESHUTDOWN, syscall.ENOMEM:
			return outage
		}
		return final
	case errors.Is(err, errChanged), errors.Is(err, nbdclient.ErrURI), errors.Is(err, syscall.EINVAL):
		return final
	}
	return outage
}

// reached notes that the server answers.
func (s *Source) reached() {
	s.mu.Lock()
	ended := !s.since.IsZero()
	lasted := time.Since(s.since)
	s.since = time.Time{}
	s.mu.Unlock()
	if ended {
		s.o.Logger.Info("the source answers again", "source", s.target.String(), "outage_seconds", lasted.Seconds())
	}
}

// unreached notes that it does not, and says when that has lasted too long.
func (s *Source) unreached(err error) error {
	s.mu.Lock()
	first := s.since.IsZero()
	if first {
		s.since = time.Now()
	}
	lasted := time.Since(s.since)
	s.mu.Unlock()
	if first {
		s.o.Logger.Warn("the source does not answer: guests wait for their pages", "source", s.target.String(), "error", err)
	}
	if s.o.Timeout > 0 && lasted >= s.o.Timeout {
		return fmt.Errorf("%v: %w: out of reach for %v: %w", s.target, kvmhook.ErrSource, lasted.Round(time.Millisecond), err)
	}
	return nil
}

func (s *Source) wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return fmt.Errorf("%w: closed", kvmhook.ErrSource)
	}
}

var errChanged = errors.New("it is not the image that it was")

// get returns the connection, which is made if there is none or it has ended.
func (l *link) get(ctx context.Context) (*nbdclient.Client, error) {
	if c := l.client.Load(); c != nil && alive(c) {
		return c, nil
	}
	select {
	case <-l.dial:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.s.ctx.Done():
		return nil, l.s.ctx.Err()
	}
	defer func() { l.dial <- struct{}{} }()
	old := l.client.Load()
	if old != nil && alive(old) {
		return old, nil
	}
	if l.s.ctx.Err() != nil {
		return nil, l.s.ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(l.s.ctx, cancel)
	defer stop()
	return l.connect(ctx, old)
}

func (l *link) connect(ctx context.Context, old *nbdclient.Client) (*nbdclient.Client, error) {
	s := l.s
	c, err := s.target.Dial(ctx, nbdclient.ClientOptions{StallTimeout: s.o.StallTimeout})
	if err != nil {
		return nil, err
	}
	if i := c.Info(); i.Size != s.info.Size || i.MinBlock != s.info.MinBlock || s.info.Allocation && !i.Allocation {
		c.Close()
		return nil, fmt.Errorf("%w: %d bytes, before %d", errChanged, i.Size, s.info.Size)
	}
	if old != nil {
		old.Close()
		s.reconnects.Add(1)
	}
	l.client.Store(c)
	return c, nil
}

func alive(c *nbdclient.Client) bool {
	select {
	case <-c.Done():
		return false
	default:
		return true
	}
}
