package qemu

import (
	"errors"
	"slices"
)

// memFile is a RAMFile in memory.
type memFile struct {
	data []byte
	full bool // writes fail
}

var errFull = errors.New("no space left")

func (f *memFile) Truncate(n int64) error { f.data = make([]byte, n); return nil }

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if f.full {
		return 0, errFull
	}
	return copy(f.data[off:], p), nil
}

func (f *memFile) Zero(off, n int64) error { clear(f.data[off : off+n]); return nil }

func (f *memFile) ReadAt(p []byte, off int64) (int, error) { return copy(p, f.data[off:]), nil }

func (f *memFile) page(n int64) []byte { return slices.Clone(f.data[n*PageSize : (n+1)*PageSize]) }
