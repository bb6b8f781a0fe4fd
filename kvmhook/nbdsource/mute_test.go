package nbdsource

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lsad/internal/nbdclient"
	"lsad/kvmhook"
)

// cable is what lies between a source and its server. A mute one takes everything and gives nothing, new connections
// included.
type cable struct {
	mute atomic.Bool
	wg   sync.WaitGroup
}

func newCable(t *testing.T, to nbdclient.Target) (*cable, nbdclient.Target) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cable")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c, server := &cable{}, to.Address
	ctx, cancel := context.WithCancel(context.Background())
	c.wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.carry(ctx, near, server) })
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		c.wg.Wait()
	})
	to.Address = path
	return c, to
}

func (c *cable) carry(ctx context.Context, near net.Conn, to string) {
	far, err := net.Dial("unix", to)
	if err != nil {
		near.Close()
		return
	}
	stop := context.AfterFunc(ctx, func() {
		near.Close()
		far.Close()
	})
	defer stop()
	c.wg.Go(func() {
		io.Copy(far, near)
		far.Close()
	})
	for p := make([]byte, 64<<10); ; {
		n, err := far.Read(p)
		if err != nil {
			near.Close()
			return
		}
		if !c.mute.Load() {
			near.Write(p[:n])
		}
	}
}

// A server that is silent, also to new connections, is given up when the time is over, not only after the stalls and
// dials of connections without a limit.
func TestMuteTooLong(t *testing.T) {
	for how, read := range map[string]func(s *Source) error{
		"urgent":         func(s *Source) error { return s.startAndWait(make([]byte, page), 0) },
		"fill":           func(s *Source) error { return s.ReadAt(context.Background(), make([]byte, page), 0) },
		"hole map":       func(s *Source) error { return s.Zeros(context.Background(), func(int64, int64) {}) },
		"new connection": func(s *Source) error { return s.readThrough(context.Background(), s.links[2], make([]byte, page), 0) },
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			_, target := unixServer(t)
			c, target := newCable(t, target)
			const limit = 400 * time.Millisecond
			s := open(t, target, Options{Timeout: limit})
			c.mute.Store(true)
			began := time.Now()
			err := read(s)
			took := time.Since(began)
			if !errors.Is(err, kvmhook.ErrSource) || !strings.Contains(err.Error(), "out of reach") {
				t.Errorf("got %v", err)
			}
			if took < limit*9/10 || took > limit+3*time.Second { // without a limit it is 20 s
				t.Errorf("it took %v", took)
			}
		})
	}
}

// A source that cannot be opened in time is no source.
func TestMuteFromStart(t *testing.T) {
	_, target := unixServer(t)
	c, target := newCable(t, target)
	c.mute.Store(true)
	began := time.Now()
	_, err := Open(t.Context(), target, Options{Timeout: 100 * time.Millisecond})
	if !errors.Is(err, nbdclient.ErrDisconnected) || time.Since(began) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// A line that is silent for a while costs a connection, and no more: there is time for another one.
func TestMuteForAWhile(t *testing.T) {
	_, target := unixServer(t)
	c, target := newCable(t, target)
	s := open(t, target, Options{Timeout: 4 * time.Second})
	c.mute.Store(true)
	done := make(outcome, 1)
	s.Start(context.Background(), make([]byte, page), 0, done)
	for s.Outage() == 0 {
		time.Sleep(time.Millisecond)
	}
	c.mute.Store(false)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s.Reconnects() == 0 {
		t.Error("no connection was made anew")
	}
}
