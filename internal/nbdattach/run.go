package nbdattach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// checkEvery is how often Run looks whether the device is still attached: nobody tells when it is detached.
const checkEvery = 250 * time.Millisecond

// Run keeps the device connected until it is detached (nil), until the context ends (its error; the device stays
// attached), or until the server cannot be reconnected to: then the device is disconnected, so that what waits for
// it fails, and the error Is ErrChanged or ErrTimeout.
func (a *Attachment) Run(ctx context.Context) error {
	a.events.conn.SetDeadline(time.Time{})
	var listening sync.WaitGroup
	listening.Go(a.listen)
	defer func() {
		a.events.conn.SetDeadline(time.Unix(1, 0)) // ends listen
		listening.Wait()
	}()
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if gone, err := a.gone(); gone || err != nil {
				return err
			}
			a.grow()
		case <-a.broken:
			if gone, err := a.gone(); gone || err != nil {
				return err
			}
			if err := a.reconnect(ctx); err != nil {
				return err
			}
		}
	}
}

// Detach disconnects the device as the function Detach does, without force. It goes on reconnecting until what is
// cached is written out: with the server away that would wait for it for ever, and fail. It is called after Run.
func (a *Attachment) Detach() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	written := make(chan settled, 1)
	go func() {
		written <- settle(a.index)
		cancel()
	}()
	err := a.Run(ctx)
	s := <-written
	if !errors.Is(err, context.Canceled) { // the device is gone, and so is what settle waited for
		s.release()
		return errors.Join(err, s.err)
	}
	return s.disconnect(a.driver)
}

// listen tells of broken connections, until its socket has a deadline. Messages that the kernel had to drop may
// have been about them too.
func (a *Attachment) listen() {
	for {
		msgs, _, err := a.events.conn.Receive()
		if isTimeout(err) {
			return
		}
		dead := err != nil
		for _, m := range msgs {
			dead = dead || isLinkDead(m, a.index)
		}
		if dead {
			a.noteBroken()
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // an error that stays must not spin
		}
	}
}

// noteBroken has Run reconnect, also a Run that is yet to come.
func (a *Attachment) noteBroken() {
	select {
	case a.broken <- struct{}{}:
	default:
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// gone says whether the device is no longer attached, or is to something else.
func (a *Attachment) gone() (bool, error) {
	all, err := a.driver.connected()
	if err != nil {
		return false, err
	}
	return !slices.Contains(all, a.index) || readSys(a.index, "backend") != a.backend.String(), nil
}

// Waits between attempts to reconnect.
const (
	firstWait = 50 * time.Millisecond
	maxWait   = time.Second
)

// reconnect replaces the connections that broke.
func (a *Attachment) reconnect(ctx context.Context) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			a.noteBroken() // they still are
		}
	}()
	a.log.Warn("a connection broke; reconnecting", "device", a.Path(), "server", a.o.URI)
	begin := time.Now()
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		err := a.tryReconnect(ctx)
		if err == nil {
			a.log.Info("reconnected", "device", a.Path(), "seconds", time.Since(begin).Seconds())
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, ErrChanged) && time.Since(begin) > a.o.Timeout {
			err = fmt.Errorf("%w: %v: %w", ErrTimeout, a.o.Timeout, err)
		}
		if errors.Is(err, ErrChanged) || errors.Is(err, ErrTimeout) {
			return errors.Join(fmt.Errorf("%s is disconnected, and what was not flushed may be lost: %w", a.Path(), err), a.driver.disconnect(a.index))
		}
		a.log.Debug("not reconnected yet", "device", a.Path(), "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		if gone, err := a.gone(); gone || err != nil {
			return err
		}
	}
}

func (a *Attachment) tryReconnect(ctx context.Context) error {
	conns, info, err := a.dial(ctx, a.o.Connections)
	if err != nil {
		return err
	}
	defer closeAll(conns)
	switch now := incarnation(info); {
	case now == unknownIncarnation:
		return fmt.Errorf("%w: it does not tell whether it kept what was acknowledged", ErrChanged)
	case now != a.backend.incarnation:
		return fmt.Errorf("%w: its incarnation was %s and is %s: it lost power, or is another volume of that name, or one that was reverted or shrunk", ErrChanged, a.backend.incarnation, now)
	}
	return a.giveSockets(a.device(conns, info))
}
