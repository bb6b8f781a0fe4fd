package nbdsource

import (
	"context"
	"errors"
	"fmt"
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
