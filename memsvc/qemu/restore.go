package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// RestoreOptions say what to resume, and where.
type RestoreOptions struct {
	State *State
	// RAM is what Block.Offset speaks of. It may be read at any time until Restore returns.
	RAM io.ReaderAt
	// Zero are pages known to read as zeros, which are not read. Pages may join while Restore runs.
	Zero *PageSet
	// Dial connects to the destination, a QEMU that listens for a migration. It is called again after a connection
	// was lost. An error that is ErrEnded or ErrComplete says that there is nothing left to find.
	Dial func(ctx context.Context) (net.Conn, error)
	// Runs, if not nil, waits until the destination no longer waits for a migration, as its monitor tells. It is called when
	// ctx ends before the destination has shown that it runs, beside everything but Dial.
	Runs func(ctx context.Context) error
	// Resume says that the VM runs at the destination already, which has lost its source.
	Resume bool
	// NoFill sends nothing but what the destination asks for. Restore then ends only with ctx.
	NoFill bool
	// Order is what the background sends first, in this order.
	Order Order
	// Record notes for so long, from when the VM runs, what it asks for, and nothing else is sent meanwhile. Then, or
	// when Restore ends, Recorded is called with the order, once; it must return soon. 0 records nothing.
	Record   time.Duration
	Recorded func(Order)
	// Rate limits the background, in bytes per second. 0 is no limit.
	Rate int64
	// HugePages gives the size of the pages that back a block at the destination, by the block's name, where that
	// is not PageSize: 2 MiB.
	HugePages map[string]int64
	// Patience is how long to go on looking for a destination that was lost. 0 is until ctx ends.
	Patience time.Duration
	// Progress, if not nil, is told how far it is. It must return soon.
	Progress func(Progress)
}

// hugePage is the one size of huge pages that is taken, in bytes.
const hugePage = 2 << 20

// Restore resumes a VM at a QEMU that waits for it (-incoming, with the migration capability postcopy-ram), and
// stays until that has all of its memory. The result says who has the VM, also beside an error: before it is
// Destination nothing runs; after that the VM needs its memory from here, and if Restore fails it waits for another
// one with Resume. Where the destination was asked to run and failed instead, its log says why.
//
// When ctx ends between the request to run and the first sign that the destination does, Restore goes on until that
// comes, for ten seconds at most.
func Restore(ctx context.Context, o RestoreOptions) (Progress, error) {
	s, err := newSession(o)
	if err != nil {
		return Progress{Owner: Source}, fmt.Errorf("restore: %w", err)
	}
	if r := newRecorder(&o); r != nil {
		defer s.record(r)()
	}
	if o.Resume {
		s.progress.Owner, s.progress.Ran = Destination, true
		err = s.recover(ctx, o, ErrLost)
	} else if err = s.deliver(ctx, o.Dial); err != nil && s.progress.Owner == Destination {
		err = s.recover(ctx, o, err)
	}
	s.progress.Took = time.Since(s.began)
	if err != nil {
		return s.progress, fmt.Errorf("restore: %w", err)
	}
	return s.progress, nil
}

func newSession(o RestoreOptions) (*session, error) {
	if err := o.Order.check(); err != nil {
		return nil, err
	}
	s := &session{
		first: orderer{order: o.Order},
		state: o.State, ram: o.RAM, zero: o.Zero, sent: NewPageSet(o.State.Pages()),
		early: func(Block) bool { return false }, hugePages: o.HugePages,
		fill: !o.NoFill, pace: pace{rate: o.Rate}, demand: newDemand(), batch: newBatch(),
		report: o.Progress, began: time.Now(), runs: o.Runs,
	}
	s.progress.Owner = Source
	if o.Zero == nil {
		s.zero = NewPageSet(o.State.Pages())
	}
	if s.zero.Len() != s.sent.Len() {
		return nil, fmt.Errorf("a set of zero pages over %d pages for a VM with %d", s.zero.Len(), s.sent.Len())
	}
	for name, size := range o.HugePages {
		b, ok := o.State.Block(name)
		switch {
		case !ok:
			return nil, fmt.Errorf("the VM has no RAM block %q", name)
		case size != hugePage && size != PageSize || b.Size%size != 0:
			return nil, unsupported("pages of %d bytes for the RAM block %q of %d bytes", size, name, b.Size)
		}
	}
	return s, nil
}

// record has what is asked for recorded, and the background wait for that. The function that it returns ends it.
func (s *session) record(r *recorder) (end func()) {
	over := make(chan struct{})
	var t *time.Timer
	s.recorder, s.hold = r, over
	s.begun = func() { t = time.AfterFunc(r.lasts, func() { close(over) }) }
	return func() {
		if t != nil {
			t.Stop()
		}
		r.end()
	}
}

// commit is the point of no return.
func (s *session) commit() error {
	if err := s.shelter.hold(); err != nil {
		return err
	}
	s.progress.Owner = Destination
	s.tell(Running)
	return nil
}

// deliver brings the VM to the destination and serves its memory on the same connection.
func (s *session) deliver(ctx context.Context, dial func(context.Context) (net.Conn, error)) error {
	s.tell(Connecting)
	conn, err := dial(ctx)
	if err != nil {
		return fmt.Errorf("connect to the destination: %w", err)
	}
	defer s.under(newShelter(ctx, s.runs, settlePatience))()
	return s.with(s.shelter.ctx, conn, func(l *link) error {
		if err := s.prepare(s.shelter.ctx, l); err != nil {
			return s.notTaken(err)
		}
		if err := s.start(l, s.commit); err != nil {
			return err
		}
		return s.serve(s.shelter.ctx, l)
	})
}

// under puts the connection on which the VM is started under a shelter, until the function that it returns is called.
func (s *session) under(shelter *shelter) (end func()) {
	s.shelter, s.interrupted = shelter, shelter.asked
	return func() {
		shelter.end()
		s.progress.Ran = shelter.proven()
		s.shelter, s.interrupted = nil, nil
	}
}

// with runs fn on a connection and closes it after. ctx ends writes too.
func (s *session) with(ctx context.Context, conn net.Conn, fn func(*link) error) error {
	l := newLink(conn, s)
	defer l.close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	err := fn(l)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Back-off between attempts to find the destination again.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
)

// recover looks for the destination again after every loss, until it has all. err is the loss.
func (s *session) recover(ctx context.Context, o RestoreOptions, err error) error {
	retry, since := firstRetry, time.Now()
	for {
		if !errors.Is(err, ErrLost) || ctx.Err() != nil {
			return err
		}
		if s.progress.Phase != Paused {
			s.progress.Losses++
			s.tell(Paused)
		}
		if o.Patience > 0 && time.Since(since) > o.Patience {
			return fmt.Errorf("the destination could not be found again within %v: %w", o.Patience, err)
		}
		if sleep(ctx, retry) != nil {
			return context.Cause(ctx)
		}
		retry = min(2*retry, lastRetry)
		conn, dialErr := o.Dial(ctx)
		if errors.Is(dialErr, ErrEnded) {
			s.progress.Owner = Nobody
			return fmt.Errorf("%w: %w", dialErr, err)
		}
		if errors.Is(dialErr, ErrComplete) {
			if s.ended { // it is what was sent here that it has
				s.tell(Complete)
				return nil
			}
			return fmt.Errorf("%w: %w", dialErr, err)
		}
		if dialErr != nil {
			s.tell(Paused)
			continue
		}
		resumed, again := s.resumeOn(ctx, conn)
		if err = again; err == nil {
			return nil
		}
		if resumed {
			retry, since = firstRetry, time.Now()
		}
	}
}

// resumeOn resumes the VM on a new connection, and serves its memory there.
func (s *session) resumeOn(ctx context.Context, conn net.Conn) (resumed bool, err error) {
	shelter := newResumption(ctx, settlePatience)
	defer shelter.end()
	err = s.with(shelter.ctx, conn, func(l *link) error {
		s.tell(Resuming)
		if err := s.resume(shelter.ctx, l); err != nil {
			return fmt.Errorf("resume: %w", err)
		}
		resumed, s.progress.Ran = true, true
		shelter.sign()
		s.tell(Running)
		return s.serve(shelter.ctx, l)
	})
	return resumed, err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
