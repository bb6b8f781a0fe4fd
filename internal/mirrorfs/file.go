package mirrorfs

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// file is a file on each side in service. One that is only read is open on one side until the other is needed.
type file struct {
	fs     *FS
	name   string
	table  bool
	writes bool
	opts   []vfs.OpenOption
	at     int64 // of Read

	mu sync.Mutex // guards handles that are opened late
	h  [2]vfs.File

	// ahead is what a side has written beyond what the caller was told, since the other was full.
	ahead   [2][]byte
	scratch []byte // of Write
}

// take keeps what open gives as the handle of side i.
func (f *file) take(i int, open func() (vfs.File, error)) error {
	h, err := open()
	if err == nil {
		f.h[i] = h
	}
	return err
}

// opened is the end of opening.
func (f *file) opened(err error) (vfs.File, error) {
	if err != nil {
		f.closeAll()
		return nil, err
	}
	return f, nil
}

func (f *file) closeAll() [2]error {
	var errs [2]error
	for i, h := range f.h {
		if h != nil {
			errs[i] = h.Close()
		}
	}
	f.h = [2]vfs.File{}
	if f.writes {
		f.fs.writing.CompareAndDelete(f.name, f)
	}
	return errs
}

func (f *file) Close() error {
	tried := f.open()
	if !f.writes {
		f.closeAll() // nothing is lost if that fails
		return nil
	}
	return f.fs.settle("close", f.name, tried, f.closeAll())
}

// open are the sides in service that have a handle.
func (f *file) open() (mask uint32) {
	for i, h := range f.h {
		if h != nil {
			mask |= 1 << i
		}
	}
	return mask & f.fs.live.Load()
}

// errNoSide: the only side on which the file is open was dropped.
var errNoSide = errors.New("the file's metadata directory is out of service")

// all runs op on every handle in service.
func (f *file) all(what string, op func(i int, h vfs.File) error) error {
	var errs [2]error
	mask := f.open()
	if mask == 0 {
		return fmt.Errorf("%s %s: %w", what, f.name, errNoSide)
	}
	for i, h := range f.h {
		if mask&(1<<i) != 0 {
			errs[i] = op(i, h)
		}
	}
	return f.fs.settle(what, f.name, mask, errs)
}

// together is all with the sides at the same time, for what waits for disks.
func (f *file) together(what string, op func(h vfs.File) error) error {
	mask := f.open()
	if mask != 3 {
		return f.all(what, func(_ int, h vfs.File) error { return op(h) })
	}
	var errs [2]error
	var wait sync.WaitGroup
	wait.Go(func() { errs[1] = op(f.h[1]) })
	errs[0] = op(f.h[0])
	wait.Wait()
	return f.fs.settle(what, f.name, mask, errs)
}

// Write appends to both. If one side is full, what the other has more of is not written to it again when the caller
// tries again.
func (f *file) Write(p []byte) (int, error) {
	var wrote [2]int
	mask := f.open()
	err := f.all("write", func(i int, h vfs.File) (err error) {
		wrote[i], err = f.writeOn(i, h, p)
		return err
	})
	if outcomeOf(err) == done {
		f.forget(len(p))
		return len(p), nil
	}
	n := len(p)
	mask &= f.fs.live.Load()
	for i := range f.h {
		if mask&(1<<i) != 0 {
			n = min(n, wrote[i])
		}
	}
	for i := range f.h {
		switch {
		case mask&(1<<i) == 0:
		case wrote[i] >= len(f.ahead[i]):
			f.ahead[i] = bytes.Clone(p[n:wrote[i]])
		default:
			f.ahead[i] = f.ahead[i][n:]
		}
	}
	return n, err
}

// forget drops what the sides were ahead by, after n bytes were written to both.
func (f *file) forget(n int) {
	for i, a := range f.ahead {
		f.ahead[i] = a[min(n, len(a)):]
	}
}

// errOtherBytes: a caller did not repeat the write that found one side full.
var errOtherBytes = errors.New("a write after one that found no room is not its repetition")

func (f *file) writeOn(i int, h vfs.File, p []byte) (int, error) {
	skip := min(len(p), len(f.ahead[i]))
	if !bytes.Equal(p[:skip], f.ahead[i][:skip]) {
		return 0, errOtherBytes
	}
	if skip == len(p) {
		return skip, nil
	}
	rest := p[skip:]
	if !f.fs.alone() { // a Write may change what it is given, and the other side wants it too
		f.scratch = append(f.scratch[:0], rest...)
		rest = f.scratch
	}
	n, err := h.Write(rest)
	return skip + n, err
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	least := len(p)
	err := f.all("write", func(_ int, h vfs.File) error {
		n, err := h.WriteAt(p, off)
		if outcomeOf(err) == full {
			least = min(least, n)
		}
		return err
	})
	if err != nil && outcomeOf(err) != full {
		least = 0
	}
	return least, err
}

func (f *file) Sync() error     { return f.together("sync", vfs.File.Sync) }
func (f *file) SyncData() error { return f.together("sync", vfs.File.SyncData) }

func (f *file) SyncTo(length int64) (bool, error) {
	whole := true
	err := f.all("sync", func(_ int, h vfs.File) error {
		w, err := h.SyncTo(length)
		whole = whole && w
		return err
	})
	return whole && err == nil, err
}

func (f *file) Preallocate(offset, length int64) error {
	return f.all("allocate", func(_ int, h vfs.File) error { return h.Preallocate(offset, length) })
}

func (f *file) Stat() (info vfs.FileInfo, err error) {
	i := f.fs.first()
	h, err := f.reader(i)
	if err == nil {
		info, err = h.Stat()
	}
	if err == nil || f.fs.last(i) {
		return info, err
	}
	other, err2 := f.reader(1 - i)
	if err2 == nil {
		info, err2 = other.Stat()
	}
	if err2 != nil {
		return nil, err
	}
	return info, f.fs.fail(i, "stat", f.name, err)
}

// Prefetch is a hint: where it fails, a read will tell.
func (f *file) Prefetch(offset, length int64) error {
	h, err := f.reader(f.fs.first())
	if err != nil {
		return err
	}
	return h.Prefetch(offset, length)
}

// Fd is that of the side that is read from. It tells callers that there is one, and is given to hints.
func (f *file) Fd() uintptr {
	h, err := f.reader(f.fs.first())
	if err != nil {
		return vfs.InvalidFd
	}
	return h.Fd()
}
