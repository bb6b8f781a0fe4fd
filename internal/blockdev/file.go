//go:build linux

package blockdev

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// File is a Device in a regular file or on a raw block device.
type File struct {
	name     string
	fd       int
	size     int64
	block    bool // a block device
	readOnly bool
	// cannotTry and cannotDiscard remember that the kernel said so for this
	// device, so that it is asked once.
	cannotTry     atomic.Bool
	cannotDiscard atomic.Bool

	// open is held shared by each call and exclusively by Close, so that a
	// descriptor number is never used after it was given to someone else.
	// Calls do not wait for one another.
	open   sync.RWMutex
	closed bool
}

var _ Device = (*File)(nil)

// Name is the path that the file was opened by.
func (f *File) Name() string { return f.name }

// Size is the length in bytes when the file was opened.
func (f *File) Size() int64 { return f.size }

// begin checks the range and keeps the descriptor open until end.
func (f *File) begin(op string, off, n int64) error {
	if err := checkRange(f.name, op, off, n, f.size); err != nil {
		return err
	}
	f.open.RLock()
	if f.closed {
		f.open.RUnlock()
		return opError(f.name, op, off, n, ErrClosed)
	}
	return nil
}

func (f *File) end() { f.open.RUnlock() }

// ReadAt implements Device.
func (f *File) ReadAt(p []byte, off int64) error {
	if err := f.begin("read", off, int64(len(p))); err != nil {
		return err
	}
	defer f.end()
	for left, at := p, off; len(left) > 0; {
		n, err := unix.Pread(f.fd, left, at)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return opError(f.name, "read", off, int64(len(p)), err)
		case n == 0:
			return opError(f.name, "read", off, int64(len(p)), fmt.Errorf("%w: it ends at %d", ErrTruncated, at))
		default:
			left, at = left[n:], at+int64(n)
		}
	}
	return nil
}

// TryReadAt implements Device with RWF_NOWAIT: what the page cache has.
// An error of the disk is also ErrWouldBlock; ReadAt tells which.
func (f *File) TryReadAt(p []byte, off int64) error {
	if f.cannotTry.Load() {
		return ErrWouldBlock
	}
	if err := f.begin("read", off, int64(len(p))); err != nil {
		return err
	}
	defer f.end()
	n, err := unix.Preadv2(f.fd, [][]byte{p}, off, unix.RWF_NOWAIT)
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == unix.EINVAL {
		f.cannotTry.Store(true)
	}
	if err != nil || n != len(p) {
		return ErrWouldBlock
	}
	return nil
}

// Prefetch implements Device with posix_fadvise, which submits the reads that
// the page cache lacks.
func (f *File) Prefetch(off, n int64) {
	if n == 0 || f.begin("prefetch", off, n) != nil {
		return
	}
	defer f.end()
	_ = unix.Fadvise(f.fd, off, n, unix.FADV_WILLNEED)
}

// WriteVec implements Device. It consumes bufs.
func (f *File) WriteVec(bufs [][]byte, off int64) error {
	total := vecLen(bufs)
	if err := f.beginChange("write", off, total); err != nil {
		return err
	}
	defer f.end()
	at := off
	for bufs = advance(bufs, 0); len(bufs) > 0; {
		n, err := pwritev(f.fd, bufs, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return opError(f.name, "write", off, total, withNoSpace(err))
		}
		if n == 0 {
			return opError(f.name, "write", off, total, errors.New("the kernel took no bytes"))
		}
		bufs, at = advance(bufs, n), at+int64(n)
	}
	return nil
}

// advance drops the first n bytes of the buffers, and empty buffers after them.
func advance(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

// beginChange is begin for what changes the device.
func (f *File) beginChange(op string, off, n int64) error {
	if f.readOnly {
		return opError(f.name, op, off, n, ErrReadOnly)
	}
	return f.begin(op, off, n)
}

// withNoSpace adds ErrNoSpace to the errors by which Linux says so.
func withNoSpace(err error) error {
	if err == unix.ENOSPC || err == unix.EDQUOT {
		return fmt.Errorf("%w (%w)", ErrNoSpace, err)
	}
	return err
}

// untilDone repeats a call while a signal interrupts it.
func untilDone(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// Sync implements Device with fdatasync, which also makes durable the extents
// that writes took.
func (f *File) Sync() error {
	if err := f.begin("sync", 0, 0); err != nil {
		return err
	}
	defer f.end()
	if err := untilDone(func() error { return unix.Fdatasync(f.fd) }); err != nil {
		return fmt.Errorf("%s: sync: %w", f.name, withNoSpace(err))
	}
	return nil
}

// Allocate implements Device with fallocate. A block device has its space
// already. Where the file system cannot promise space the error wraps
// errors.ErrUnsupported.
func (f *File) Allocate(off, n int64) error {
	if err := f.beginChange("allocate", off, n); err != nil {
		return err
	}
	defer f.end()
	if f.block || n == 0 {
		return nil
	}
	err := untilDone(func() error { return unix.Fallocate(f.fd, unix.FALLOC_FL_KEEP_SIZE, off, n) })
	if err != nil {
		return opError(f.name, "allocate", off, n, withNoSpace(err))
	}
	return nil
}

// Discard implements Device: it punches a hole into a file, and discards
// whole sectors of a block device.
func (f *File) Discard(off, n int64) error {
	if err := f.beginChange("discard", off, n); err != nil {
		return err
	}
	defer f.end()
	if n == 0 || f.cannotDiscard.Load() {
		return nil
	}
	err := untilDone(func() error {
		if f.block {
			return discardBlocks(f.fd, off, n)
		}
		return unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		f.cannotDiscard.Store(true)
		return nil
	}
	if err != nil {
		return opError(f.name, "discard", off, n, withNoSpace(err))
	}
	return nil
}

// Close implements Device. It waits for calls that are under way.
func (f *File) Close() error {
	f.open.Lock()
	defer f.open.Unlock()
	if f.closed {
		return fmt.Errorf("%s: close: %w", f.name, ErrClosed)
	}
	f.closed = true
	if err := unix.Close(f.fd); err != nil {
		return fmt.Errorf("%s: close: %w", f.name, err)
	}
	return nil
}
