// Package blockdev is what lsad calls a device: a flat range of bytes that can
// be read, written, synced and given back to whoever owns the space below it.
//
// It owns the system calls and nothing above them: it knows no format. File
// is a regular file or a raw block device, Mem can lose power, Faulty and Slow
// wrap another Device. Nothing in here imports another package of lsad.
//
// Each type has at most one mutex, held for no I/O and no callback, so there
// is no lock order but that of Mem, for several devices that crash together.
// File holds a lock shared during its calls, which only Close waits for.
package blockdev

import "errors"

// SectorSize is the unit of tearing, in bytes: a power loss leaves each
// aligned run of this length either old or new.
const SectorSize = 512

var (
	// ErrNoSpace: the file system below the device has no room.
	ErrNoSpace = errors.New("no space left below the device")
	// ErrOutOfRange: offset and length do not lie within the device.
	ErrOutOfRange = errors.New("beyond the end of the device")
	// ErrWouldBlock: a TryReadAt needs the disk.
	ErrWouldBlock = errors.New("would block")
	// ErrClosed: the device was closed.
	ErrClosed = errors.New("device is closed")
	// ErrLocked: another process has the device open.
	ErrLocked = errors.New("in use by another process")
	// ErrTruncated: the device is shorter than it was, or than it should be.
	ErrTruncated = errors.New("device was cut short")
	// ErrReadOnly: the device was opened for reading only.
	ErrReadOnly = errors.New("device is open for reading only")
)

// Device is one backing store. All methods may be called from many goroutines
// at once. Offsets and lengths are in bytes. A short read or write is an
// error, never a count.
type Device interface {
	// Name says which device it is in errors and listings: a path.
	Name() string
	// Size is the length of the device in bytes, fixed while it is open.
	Size() int64
	// ReadAt fills p from off.
	ReadAt(p []byte, off int64) error
	// TryReadAt is ReadAt if that needs no wait for a disk, and
	// ErrWouldBlock with p undefined if it does (or cannot tell).
	TryReadAt(p []byte, off int64) error
	// Prefetch begins to read the range from the disk and does not wait for
	// it: a ReadAt that follows finds it sooner. Several at once let the disk
	// serve them side by side. It is a hint; what goes wrong, ReadAt tells.
	Prefetch(off, n int64)
	// WriteVec writes the buffers one after the other, from off, in one
	// system call where it can. The buffers are not kept or changed; the
	// slice of slices may be consumed by the call.
	WriteVec(bufs [][]byte, off int64) error
	// Sync makes every write that completed before the call durable. After an
	// error nothing is known about what was not synced before.
	Sync() error
	// Allocate reserves space for the range, so that a later write to it
	// cannot fail for want of room. It changes no byte that reads return.
	Allocate(off, n int64) error
	// Discard gives the range's space back. Reads of it return zeros or what
	// was there before, and a device that cannot discard does nothing.
	Discard(off, n int64) error
	// Close releases the device. It does not sync.
	Close() error
}
