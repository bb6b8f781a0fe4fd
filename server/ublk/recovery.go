package ublk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Resume takes over a device whose server is gone, and serves x through it. It waits until the kernel is done with
// the old server, which takes a few seconds at the most; if that is alive, the error Is ErrServed. The device closes x
// when it ends; if Resume fails the caller does, and the device waits on.
func Resume(ctx context.Context, id int, x Export, o Options) (*Device, error) {
	d := newDevice(x, &o)
	if err := d.takeOver(ctx, id); err != nil {
		return nil, err
	}
	p, err := getParams(id)
	if err != nil {
		return nil, err
	}
	d.readOnly, d.size = p.readOnly, int64(p.sectors)<<sectorShift
	if x.Size() < d.size {
		return nil, fmt.Errorf("%s has %d bytes, and what it served has only %d now: %w", d.Path(), d.size, x.Size(), ErrInvalid)
	}
	if err = d.open(); err == nil {
		err = d.command(cmdEndRecovery)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take %s over: %w", d.Path(), err), d.leave())
	}
	return d, nil
}

// takeOver has the kernel forget the old server.
func (d *Device) takeOver(ctx context.Context, id int) (err error) {
	d.info.ID = id
	mended := false
	for {
		if d.info, err = info(id); err != nil {
			return err
		}
		if err := d.info.Served(ctx); err != nil {
			return fmt.Errorf("take over: %w", err)
		}
		if d.info.State == StateDead {
			return fmt.Errorf("take %s over: %w: it was never started", d.Path(), ErrNotFound)
		}
		if d.info.State == StateWaiting && !mended && d.info.features&featurePerIODaemon == 0 {
			err = d.mend()
			mended = err == nil
		}
		if err == nil {
			err = d.command(cmdStartRecovery)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("take %s over: %w", d.Path(), err)
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("take %s over: its server (process %d) is not gone: %w", d.Path(), d.info.PID, err)
		}
	}
}

// pause waits for the kernel to get on with something that it tells nobody of.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(5 * time.Millisecond):
		return nil
	}
}

// mend makes a device fit to be taken over whose last server died while it took it over itself.
//
// The driver takes START_USER_RECOVERY for a device whose queues all have a thread, a dead one, and forgets these
// threads. Until Linux 6.15 it refuses a device none of whose queues has got a new thread since, so that what a
// server leaves that dies then can never be taken over; and if some queues have and some have not, the driver
// dereferences the missing ones. So every queue that has no thread is given one, which ends at once. The device stays
// quiesced all the while, so that no request comes. Queues that have a thread refuse another, which is all that
// happens to a device whose server died at any other time.
//
// The error Is unix.EBUSY while the old server is not quite gone.
func (d *Device) mend() (err error) {
	if d.char, err = unix.Open(charPath(d.info.ID), unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open %s: %w", charPath(d.info.ID), err)
	}
	var errs []error
	for i := range d.info.Queues {
		errs = append(errs, newQueue(d, i).visit())
	}
	return errors.Join(append(errs, d.closeChar())...)
}

// visit gives the queue a thread that ends at once.
func (q *queue) visit() error {
	err := onThread(func() error {
		if err := q.allocate(); err != nil {
			return err
		}
		return q.fetch()
	})
	if errors.Is(err, unix.EINVAL) {
		err = nil // it has, or had, a thread
	}
	return errors.Join(err, q.close())
}
