package ublk

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"lsad/internal/loopdev"
)

// fail notes that a queue ended by an error: requests of the device wait for another server from then on.
func (d *Device) fail(err error) {
	d.failing.Do(func() {
		d.log.Error("a ublk device is no longer served", "device", d.Path(), "error", err)
		d.failure = fmt.Errorf("%s: %w: %w", d.Path(), ErrFailed, err)
		close(d.failed)
	})
}

// Failure is why the device is no longer served, nil if it is. The error Is ErrFailed. Who waits for the device waits
// until it is removed by force, or left to another server.
func (d *Device) Failure() error {
	select {
	case <-d.failed:
		return d.failure
	default:
		return nil
	}
}

// InUse says whether a mount, or another holder, has the device or a part of it to itself, or a loop device is on it.
func (d *Device) InUse() bool {
	if len(loopdev.Over(d.Path())) > 0 {
		return true
	}
	fd, err := unix.Open(d.Path(), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd) // it was only looked at
	}
	return errors.Is(err, unix.EBUSY)
}

// Stop writes out what the kernel has cached of the device, removes it, and closes its export. A device that is in
// use is not removed; the error Is ErrInUse. With force it is removed at once, in use or not, and nothing is written
// out: the kernel fails what is written to a device that is being stopped, and writing it out before could wait for ever.
func (d *Device) Stop(force bool) error {
	holder := -1
	if !force {
		d.awaitTune()
		var err error
		if holder, err = d.settle(); err != nil {
			return err
		}
	}
	err := command(cmdStop, control{id: uint32(d.info.ID)}, nil)
	if holder >= 0 {
		unix.Close(holder) // it was there to keep others out
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", d.Path(), err)
	}
	d.wg.Wait()
	d.settling.Wait()
	d.ending.Lock() // a second one, with force, may have overtaken the first
	defer d.ending.Unlock()
	return errors.Join(d.closeChar(), remove(d.info.ID), d.export.Close())
}

// awaitTune waits for the end of tune, which a device that fails at that moment does not let happen.
func (d *Device) awaitTune() {
	if d.tuned == nil {
		return
	}
	select {
	case <-d.tuned:
	case <-d.failed:
		select {
		case <-d.tuned:
		default:
			d.stuck.Store(true)
		}
	}
}

// settle writes out the kernel's cache of the device, and returns a descriptor that keeps others from having it to
// themselves until it is closed, -1 if the device is gone. The error Is ErrInUse if somebody may have more to write,
// and ErrFailed if nothing can be written any more. The descriptor is read-only: udev looks anew at a device that was
// open for writing.
func (d *Device) settle() (holder int, err error) {
	if err := d.Failure(); err != nil {
		return -1, err
	}
	if loops := loopdev.Over(d.Path()); len(loops) > 0 {
		return -1, fmt.Errorf("%s is %w by %s: unmount what is on that and detach it (losetup -d)", d.Path(), ErrInUse, strings.Join(loops, ", "))
	}
	fd, err := unix.Open(d.Path(), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return -1, fmt.Errorf("%s is %w: unmount it, or end what else has it", d.Path(), ErrInUse)
	case err != nil:
		return -1, nil // gone: nothing is cached that could be written
	}
	synced := make(chan error, 1)
	d.settling.Go(func() { synced <- unix.Fsync(fd) })
	select {
	case err = <-synced:
	case <-d.failed:
		// It may wait until the device is removed, or served again.
		d.stuck.Store(true)
		d.settling.Go(func() { <-synced; unix.Close(fd) })
		return -1, d.failure
	}
	if err != nil {
		unix.Close(fd) // the error says enough
		return -1, fmt.Errorf("write out what is cached of %s: %w", d.Path(), err)
	}
	return fd, nil
}

// Leave ends serving but keeps the device: its requests wait for who resumes it. Those under way are completed or
// will be issued again. It closes the export.
func (d *Device) Leave() error {
	d.awaitTune()
	if d.stuck.Load() {
		// This process could not end while it waits for the device, nor another serve it before that.
		d.log.Error("removing a ublk device that failed in the midst of something", "device", d.Path())
		return d.Stop(true)
	}
	return errors.Join(d.leave(), d.export.Close())
}

func (d *Device) leave() error {
	for _, q := range d.queues {
		q.leave()
	}
	d.wg.Wait()
	return d.closeChar()
}
