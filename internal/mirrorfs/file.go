package mirrorfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// reader is the handle to read from, of side i.
func (f *file) reader(i int) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.h[i] == nil {
		if f.writes {
			return nil, errNoSide
		}
		s := f.fs.sides[i]
		h, err := s.FS.Open(f.fs.on(i, f.name), f.opts...)
		if err != nil {
			return nil, err
		}
		f.h[i] = h
	}
	return f.h[i], nil
}

func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.at)
	f.at += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *file) readOn(i int, p []byte, off int64) (int, error) {
	h, err := f.reader(i)
	if err != nil {
		return 0, err
	}
	return h.ReadAt(p, off)
}

// ReadAt reads from the first side in service, and from the other if that one fails, ends early, or gives bytes that
// are not what was written.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	i := f.fs.first()
	n, err := f.readOn(i, p, off)
	if f.fs.last(i) || err == nil && (!f.table || f.fs.alone() || isBlock(p[:n])) {
		return n, err
	}
	return f.readBoth(i, p, n, off, err)
}

// readBoth is a read that gave n bytes and err on side i, and that the other side has to confirm.
func (f *file) readBoth(i int, p []byte, n int, off int64, err error) (int, error) {
	q := make([]byte, len(p))
	n2, err2 := f.readOn(1-i, q, off)
	cause := err
	switch {
	case !isEnd(err2): // the other side knows nothing better
		return n, err
	case !isEnd(err): // this one cannot read it
	case bytes.Equal(p[:n], q[:n2]):
		return n, err
	case f.better(i, p[:n], q[:n2]):
		cause = fmt.Errorf("%w at %d", errNotWritten, off)
	default:
		return n, err
	}
	if err := f.fs.fail(i, "read", f.name, cause); err != nil {
		return n, err
	}
	return copy(p, q[:n2]), err2
}

// better says whether q, from the other side, is what was written, and p, from side i, is not.
func (f *file) better(i int, p, q []byte) bool {
	_, busy := f.fs.writing.Load(f.name)
	switch {
	case busy:
		return false
	case !f.table:
		return len(q) > len(p) // it was cut short
	}
	return !isBlock(p) && (isBlock(q) || f.damaged(i))
}

// damaged says whether the table is damaged on side i and not on the other.
func (f *file) damaged(i int) bool {
	ctx := context.Background()
	base := f.fs.PathBase(f.name)
	return f.fs.sides[i].checkTable(ctx, base) != nil && f.fs.sides[1-i].checkTable(ctx, base) == nil
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
