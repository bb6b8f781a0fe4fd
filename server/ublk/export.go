package ublk

import (
	"errors"
	"log/slog"
	"time"
)

// Export is what a device serves. Its methods may be called from many goroutines at once, except Close, which comes
// last. Offsets and lengths are in bytes and lie within Size, unless it has shrunk.
//
// A device reports the first syscall.Errno that an error wraps, and EIO for all others.
type Export interface {
	Size() int64
	ReadOnly() bool
	// TryReadAt fills p if that needs no wait for a disk. With done=false p is undefined.
	TryReadAt(p []byte, off int64) (done bool, err error)
	ReadAt(p []byte, off int64) error
	// WriteBatch writes data[i] at offs[i] and sets errs[i]. It does not keep data. Overlapping writes of one
	// batch take effect in slice order.
	WriteBatch(offs []int64, data [][]byte, errs []error)
	Trim(off, n int64) error
	// WriteZeroes makes the range read as zeros; with noHole it stays allocated.
	WriteZeroes(off, n int64, noHole bool) error
	// Flush makes durable everything that was acknowledged before.
	Flush() error
	Close() error
}

// Op is a kind of request, for metrics.
type Op uint8

// Kinds of requests. A write with FUA counts as a write.
const (
	OpRead Op = iota
	OpWrite
	OpFlush
	OpTrim
	OpWriteZeroes
	NumOps
)

// Recorder counts requests. It is called from all queues and workers at once.
type Recorder interface {
	Record(op Op, n int, bytes int64, errors int, latency time.Duration)
}

// Limits of Options.
const (
	MaxQueues     = 64
	MaxDepth      = 4096 // UBLK_MAX_QUEUE_DEPTH
	DefaultDepth  = 128
	DefaultQueues = 1
)

// Options of a new device.
type Options struct {
	// Queues, from 1 to MaxQueues; the kernel makes no more than it has processors. 0 is DefaultQueues.
	Queues int
	// Depth is how many requests each queue has under way, from 1 to MaxDepth. 0 is DefaultDepth. Each may take
	// 512 KiB of memory.
	Depth    int
	ReadOnly bool
	// Key is what the next server knows the device by. It should be no number that another program would choose.
	Key uint64

	Recorder Recorder // may be nil
	Logger   *slog.Logger
}

var (
	// ErrNoDriver: the kernel has no ublk, or it is not loaded.
	ErrNoDriver = errors.New("the kernel's ublk driver is not there")
	// ErrPermission: only root may make devices.
	ErrPermission = errors.New("no permission to use the ublk driver")
	// ErrInUse: a file system, or another holder, has the device.
	ErrInUse = errors.New("in use")
	// ErrNotFound: there is no such device.
	ErrNotFound = errors.New("no such device")
	// ErrNoResize: this kernel cannot change the size of a device.
	ErrNoResize = errors.New("this kernel cannot change the size of a ublk device (Linux 6.16 can)")
	// ErrFailed: nobody serves the device any more, although its server lives.
	ErrFailed = errors.New("it is no longer served")
	// ErrServed: another process serves the device.
	ErrServed = errors.New("another server serves it")
	// ErrInvalid: options, or a size, that cannot be.
	ErrInvalid = errors.New("invalid")
)
