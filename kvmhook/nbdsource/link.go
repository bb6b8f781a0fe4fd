package nbdsource

import (
	"context"
	"sync/atomic"

	"lsad/internal/nbdclient"
)

// link is one connection that is made anew when it fails.
type link struct {
	s      *Source
	client atomic.Pointer[nbdclient.Client] // nil while there is none
	dial   chan struct{}                    // holds one token: who has it connects
}

// get returns the connection, which is made if there is none or it has ended. See Source.connected.
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
	c, err := s.target.Dial(ctx, nbdclient.ClientOptions{StallTimeout: s.stall()})
	if err != nil {
		return nil, err
	}
	if err := s.changed(c.Info()); err != nil {
		c.Close()
		return nil, err
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
