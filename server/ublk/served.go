package ublk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A device is named by a key that a server on a copy of the same data would use too. So nothing may be done to one
// that somebody serves: the driver lets one process at a time have its side of a device open, which tells.

// dyingTime is how long a process that is being killed may seem to serve a device.
const dyingTime = 2 * time.Second

// isOpen says whether a process has the driver's side of a device open.
func isOpen(id int) bool {
	fd, err := unix.Open(charPath(id), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd) // it was only looked at
	}
	return errors.Is(err, unix.EBUSY)
}

// servedByOther says whether a live process, and not this one, serves the device.
func (i *Info) servedByOther() bool {
	if i.State != StateLive || i.PID <= 0 || i.PID == os.Getpid() || errors.Is(unix.Kill(i.PID, 0), unix.ESRCH) {
		return false
	}
	return isOpen(i.ID)
}

func (i *Info) errServed() error {
	return fmt.Errorf("%s: %w (process %d)", blockPath(i.ID), ErrServed, i.PID)
}

// Served says, by an error that Is ErrServed, that another process serves the device. One that is being killed is
// waited for.
func (i *Info) Served(ctx context.Context) error {
	for until := time.Now().Add(dyingTime); i.servedByOther(); {
		if time.Now().After(until) {
			return i.errServed()
		}
		if err := pause(ctx); err != nil {
			return errors.Join(i.errServed(), err)
		}
	}
	return nil
}

// Remove stops and deletes a device that nobody serves. Requests that wait for it fail. If somebody does serve it, the
// error Is ErrServed.
func Remove(ctx context.Context, id int) error {
	i, err := info(id)
	if err != nil {
		return err
	}
	for until := time.Now().Add(dyingTime); isOpen(id); {
		if time.Now().After(until) {
			return i.errServed()
		}
		if err := pause(ctx); err != nil {
			return errors.Join(i.errServed(), err)
		}
	}
	if err := command(cmdStop, control{id: uint32(id)}, nil); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("stop %s: %w", blockPath(id), err)
	}
	return remove(id)
}
