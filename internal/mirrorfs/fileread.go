package mirrorfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

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
