package storefs

import (
	"errors"
	"io/fs"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Problem is that changes fail for another reason than want of room: the disk does not take them.
type Problem struct {
	Err   error     // the last one
	Since time.Time // when it began
	Tries int       // that failed since then
}

// mostPauses bounds, in pauses, how long is waited before what failed is tried again: the store itself does not wait.
const mostPauses = 16

// isFailure says whether an error means that the disk did not take a change. Others are answers: there is no such file,
// say.
func isFailure(err error) bool {
	switch {
	case err == nil, IsFull(err),
		errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTEMPTY),
		errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS), errors.Is(err, vfs.ErrUnsupported):
		return false
	}
	return true
}

// noted is a failure that is noted already.
type noted struct{ error }

func (n noted) Unwrap() error { return n.error }

// IsNoted says whether an error is, or wraps, the failure of a change that the file system has noted. Whoever hears of it
// later need not: the store may have been healed meanwhile.
func IsNoted(err error) bool {
	var n noted
	return errors.As(err, &n)
}

// Failed notes that a change failed, and returns how long to wait before the next try.
func (f *FS) Failed(err error) time.Duration {
	for {
		old := f.problem.Load()
		p := &Problem{Err: err, Since: time.Now(), Tries: 1}
		if old != nil {
			p.Since, p.Tries = old.Since, old.Tries+1
		}
		if f.problem.CompareAndSwap(old, p) {
			f.o.Failed(p)
			return f.o.Pause * time.Duration(min(p.Tries, mostPauses))
		}
	}
}

// Problem returns what keeps the store from being changed, nil if nothing does.
func (f *FS) Problem() *Problem { return f.problem.Load() }

// Healed notes that the store could be changed, and returns the problem that there was.
func (f *FS) Healed() *Problem { return f.problem.Swap(nil) }

// dir is a directory that the store syncs.
type dir struct {
	vfs.File
	fs *FS
}

func (f *FS) OpenDir(name string) (vfs.File, error) {
	d, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &dir{File: d, fs: f}, nil
}

// Sync makes names durable. If that fails where a marker was made, nobody knows which manifest counts after a loss of
// power, and a second sync proves nothing: the kernel may have dropped what it could not write. A start finds out, and
// makes a new manifest.
func (d *dir) Sync() error {
	err := d.fs.sync(d.File.Sync)
	switch {
	case err == nil:
		d.fs.moved.Store(false)
	case d.fs.moved.Load():
		d.fs.o.Fatal(err)
	}
	return err
}
