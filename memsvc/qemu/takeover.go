package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// How long a destination may take: to prepare itself, while the VM runs on, and to take what makes the VM wait.
const (
	preparePatience = 2 * time.Minute
	standPatience   = 30 * time.Second
)

// handOver brings the VM to the destination over conn and serves its memory there.
//
// The VM waits for as little as can be. The blocks are known from the head of the source's stream, while the VM runs;
// the stream is not read on until the destination has accepted them, and a source whose stream is not read does not
// come to its end and stop the VM. What follows the stop is the device state, which is passed on while the source is
// asked whether it is really done.
func (m *mover) handOver(ctx context.Context, conn net.Conn) error {
	shelter := newShelter(ctx, m.o.Runs, settlePatience)
	defer shelter.end()
	limited := newLimit(shelter.ctx, conn)
	defer limited.end()
	var l *link
	end := func() {}
	defer func() { end() }()
	var refused error
	sink := announced{&m.ram, func(state *State) error {
		if err := m.open(ctx, state); err != nil {
			return err
		}
		end = m.session.under(shelter)
		l = newLink(conn, m.session)
		limited.within(preparePatience)
		if err := m.session.prepare(limited.ctx, l); err != nil {
			refused = m.session.notTaken(limited.cause(err))
			return refused
		}
		return limited.lift() // what follows is the source's to send
	}}
	defer func() {
		if l != nil {
			l.close()
		}
	}()
	_, err := m.h.take(ctx, m.o.Listener, m.o.URI, sink)
	switch {
	case refused != nil:
		return refused
	case err != nil:
		return fmt.Errorf("take the VM's state from the source: %w", limited.cause(err))
	}
	m.at.saved = time.Now()
	limited.within(standPatience)
	err = m.session.sendEarly(l)
	if err == nil {
		err = m.session.start(l, func() error { return m.commit(ctx, limited) })
	}
	if err == nil {
		err = m.session.serve(limited.ctx, l)
	}
	return limited.cause(err)
}

// commit makes sure that the source will not run the VM again; after it the destination may.
func (m *mover) commit(ctx context.Context, limited *limit) error {
	m.at.sent = time.Now()
	if err := m.h.completed(ctx); err != nil {
		return fmt.Errorf("take the VM from the source: %w", err)
	}
	if err := limited.lift(); err != nil {
		return err
	}
	m.at.confirmed = time.Now()
	if err := m.session.commit(); err != nil {
		return err
	}
	m.result.Owner = Destination
	return nil
}

// announced is a splitRAM that tells when the VM's blocks are known.
type announced struct {
	*splitRAM
	known func(*State) error
}

func (a announced) begin(state *State) error {
	if err := a.splitRAM.begin(state); err != nil {
		return err
	}
	return a.known(state)
}

// errSilent: the destination is connected and does not do its part.
var errSilent = errors.New("the destination does not answer")

// limit closes a connection when ctx ends, or when the time of within is over before lift is called.
type limit struct {
	parent context.Context
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stop   func() bool
}

func newLimit(parent context.Context, conn net.Conn) *limit {
	l := &limit{parent: parent}
	l.ctx, l.cancel = context.WithCancelCause(parent)
	l.timer = time.AfterFunc(preparePatience, func() { l.cancel(errSilent) })
	l.timer.Stop() // until a time is given
	l.stop = context.AfterFunc(l.ctx, func() { conn.Close() })
	return l
}

// within gives a time from now on.
func (l *limit) within(d time.Duration) { l.timer.Reset(d) }

// lift leaves no limit but the parent's; it fails if that or the time is over already.
func (l *limit) lift() error {
	l.timer.Stop()
	return context.Cause(l.ctx)
}

// cause is why something failed: because of the limit, or else err.
func (l *limit) cause(err error) error {
	if err != nil && l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	return err
}

func (l *limit) end() {
	l.timer.Stop()
	l.stop()
	l.cancel(nil)
}
