// Package uring is the small part of Linux io_uring that serving a ublk device takes: a ring that commands are
// submitted to and completions are taken from, many of each with one system call.
//
// A Ring belongs to one goroutine at a time and has no locks. With SingleIssuer it belongs to one thread: the
// goroutine that makes it must be locked to its thread, and only that may use it. The package opens nothing but
// the ring and touches no memory but the ring's own; addresses in submissions are the caller's to keep alive.
//
// Layouts and numbers are those of include/uapi/linux/io_uring.h.
package uring

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Operations of a submission.
const (
	OpRead = 22 // IORING_OP_READ
	OpCmd  = 46 // IORING_OP_URING_CMD: a command of the file's driver
)

// Flags of io_uring_setup and io_uring_enter.
const (
	setupClamp        = 1 << 4
	setupSQE128       = 1 << 10
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13
	enterGetEvents    = 1 << 0
)

// SQE is one submission. Cmd is the first part of a driver command's own data; with Options.LongCmd the rest
// follows and SetCmd writes all of it.
type SQE struct {
	Op          uint8
	Flags       uint8
	Priority    uint16
	FD          int32
	Off         uint64 // of a driver command: its number, in the low half
	Addr        uint64
	Len         uint32
	OpFlags     uint32
	UserData    uint64 // comes back with the completion
	BufIndex    uint16
	Personality uint16
	Splice      int32
	Cmd         [16]byte
}

// CQE is one completion.
type CQE struct {
	UserData uint64
	Res      int32 // a result, or a negative errno
	Flags    uint32
}

// Options of a ring.
type Options struct {
	// LongCmd makes room for 80 bytes of data with each driver command instead of 16.
	LongCmd bool
	// SingleIssuer promises that one thread uses the ring. The kernel then does its part of completing
	// requests when that thread comes to wait, all at once, instead of interrupting it for each.
	SingleIssuer bool
}

// ErrUnavailable is what the error of New Is where the kernel or its administrator does not let us have a ring.
var ErrUnavailable = errors.New("io_uring is not available")

// errFull: more was prepared than the ring has room for.
var errFull = errors.New("io_uring: submission ring full")

// New makes a ring with room for entries submissions, rounded up to a power of two, and twice as many completions.
func New(entries uint32, o Options) (*Ring, error) {
	p := params{Flags: setupClamp}
	if o.LongCmd {
		p.Flags |= setupSQE128
	}
	if o.SingleIssuer {
		p.Flags |= setupSingleIssuer | setupDeferTaskrun
	}
	fd, err := setup(entries, &p)
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("%w: %w (see the sysctl kernel.io_uring_disabled)", ErrUnavailable, err)
	case errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("%w: %w (it takes Linux 6.1)", ErrUnavailable, err)
	case err != nil:
		return nil, fmt.Errorf("io_uring: %w", err)
	}
	r := &Ring{fd: fd, long: o.LongCmd}
	if err := r.mapMemory(&p); err != nil {
		return nil, errors.Join(fmt.Errorf("io_uring: map the ring: %w", err), r.Close())
	}
	return r, nil
}

// Submit hands everything prepared to the kernel and waits until so many completions are there. Interrupted
// waits are taken up again.
func (r *Ring) Submit(wait uint32) error {
	for {
		n := r.publish()
		if n == 0 && wait == 0 {
			return nil
		}
		flags := uint32(0)
		if wait > 0 {
			flags = enterGetEvents
		}
		_, err := enter(r.fd, n, wait, flags)
		switch {
		case err == nil, errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			// What was taken is no longer counted. Waiting is over if there are completions: a signal ends it too,
			// which is no error where something was taken.
			if r.unsubmitted() == 0 && r.ready() >= wait {
				return nil
			}
		default:
			return fmt.Errorf("io_uring: submit: %w", err)
		}
	}
}
