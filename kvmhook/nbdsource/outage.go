package nbdsource

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"lsad/internal/nbdclient"
	"lsad/kvmhook"
)

// try does something with a connection, again and again until it is done, fails for good, or the outage has lasted
// too long.
func (s *Source) try(ctx context.Context, l *link, fn func(c *nbdclient.Client) error) error {
	pause, refused := leastPause, 0
	for {
		began := time.Now()
		c, err := s.connected(ctx, l, began)
		if err == nil {
			began = time.Now()
			if err = fn(c); err == nil {
				s.reached()
				return nil
			}
			began = s.unheard(began)
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
			if err := s.unreached(began, err); err != nil {
				return err
			}
			pause = s.within(pause)
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
	s.since, s.why = time.Time{}, nil
	s.mu.Unlock()
	if ended {
		s.o.Logger.Info("the source answers again", "source", s.target.String(), "outage_seconds", lasted.Seconds())
	}
}

// unheard is since when the server may have been silent, where a request that began at a time failed: its connection may
// have answered until a stall ago, which is noticed up to a quarter late.
func (s *Source) unheard(began time.Time) time.Time {
	if heard := time.Now().Add(-s.stall() * 5 / 4); began.Before(heard) {
		return heard
	}
	return began
}

// unreached notes that it does not since a time, and says when that has lasted too long.
func (s *Source) unreached(began time.Time, err error) error {
	s.mu.Lock()
	first := s.since.IsZero()
	if first {
		s.since = began
	}
	lasted := time.Since(s.since)
	var late net.Error // what cuts the last attempt short tells nothing
	if !errors.As(err, &late) || !late.Timeout() {
		s.why = err
	} else if s.why != nil {
		err = fmt.Errorf("%w, and before that %w", err, s.why)
	}
	s.mu.Unlock()
	if first {
		s.o.Logger.Warn("the source does not answer: guests wait for their pages", "source", s.target.String(), "error", err)
	}
	if s.o.Timeout > 0 && lasted >= s.o.Timeout {
		return fmt.Errorf("%v: %w: out of reach for %v: %w", s.target, kvmhook.ErrSource, lasted.Round(time.Millisecond), err)
	}
	return nil
}

// defaultStall is how long a server may be silent, unless something else was asked for.
const defaultStall = 10 * time.Second

// stall is how long a server may be silent: so long that after that there is time for a new connection, if the time is
// limited.
func (s *Source) stall() time.Duration {
	d := s.o.StallTimeout
	if d <= 0 {
		d = defaultStall
	}
	if s.o.Timeout > 0 {
		d = min(d, max(s.o.Timeout/2, time.Millisecond))
	}
	return d
}

// deadline is when an attempt that begins now has taken too long, if there is such a time.
func (s *Source) deadline(began time.Time) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.since.IsZero() {
		began = s.since
	}
	return began.Add(s.o.Timeout), s.o.Timeout > 0
}

// within shortens a pause to what is left of the time.
func (s *Source) within(pause time.Duration) time.Duration {
	if until, limited := s.deadline(time.Now()); limited {
		return min(pause, max(0, time.Until(until)))
	}
	return pause
}

// leastDial is the least time that an attempt to connect gets, unless the time is over.
const leastDial = 100 * time.Millisecond

// connected returns a connection, or fails when half of the time that is left is over: one that is made may never be
// answered, and another one be.
func (s *Source) connected(ctx context.Context, l *link, began time.Time) (*nbdclient.Client, error) {
	if c := l.client.Load(); c != nil && alive(c) {
		return c, nil
	}
	if until, limited := s.deadline(began); limited {
		var cancel context.CancelFunc
		left := time.Until(until)
		ctx, cancel = context.WithTimeout(ctx, min(left, max(left/2, leastDial)))
		defer cancel()
	}
	return l.get(ctx)
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
