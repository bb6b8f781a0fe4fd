package guestmem

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// PageSize is the size of a guest page, and the unit of all page counts, in
// bytes. x86-64 has no other base page.
const PageSize = 4096

const pageShift = 12

// maxBytes bounds the RAM of one guest, in bytes: eight TiB, whose bitmap is
// 256 MiB.
const maxBytes = 8 << 40

// maxGPA bounds guest-physical addresses: x86-64 has at most 52 bits of them.
const maxGPA = 1 << 52

var (
	// ErrMemory means that ranges do not make up a guest's memory.
	ErrMemory = errors.New("not the memory of a guest")
	// ErrFault means that a memory-mapped file could not be read where its size
	// said that it could: it was shortened, or its disk failed.
	ErrFault = errors.New("cannot read guest memory")
)

// An Extent is a part of a range's data, in bytes. Both are multiples of
// PageSize.
type Extent struct{ Off, Len uint64 }

// A Range is RAM that is contiguous in the guest.
type Range struct {
	GPA  uint64 // guest-physical address of the first byte, a multiple of PageSize
	Data []byte // a multiple of PageSize long; never written
	// Extents are the parts of Data that are not holes of its file, sorted. Holes
	// are zeros; reading them through a mapping would allocate memory for them,
	// so that what visits all pages leaves them out. Nil means that there is no
	// hole.
	Extents []Extent
	// File, if not nil, is what Data maps, from byte Off on. What looks at all pages reads them there: that takes a
	// fifth of the time of mapping them, page by page.
	File io.ReaderAt
	Off  int64
}

// Memory is the RAM of a guest that does not run. Its pages are numbered in
// the order of their addresses, without the gaps between ranges: page 0 is the
// first of the first range, and the first page of a range follows the last one
// of the range before. Memory is safe for concurrent use.
type Memory struct {
	ranges []Range
	first  []uint64 // number of each range's first page
	pages  uint64
}

// NewMemory makes a Memory of ranges, which must be sorted by address, not
// empty and not overlapping. The error wraps ErrMemory.
func NewMemory(ranges []Range) (*Memory, error) {
	m := &Memory{ranges: slices.Clone(ranges)}
	var end, bytes uint64 // of the ranges so far
	for i, r := range ranges {
		length := uint64(len(r.Data))
		switch {
		case length == 0 || length%PageSize != 0 || r.GPA%PageSize != 0:
			return nil, fmt.Errorf("%w: %d bytes at %#x are not whole pages", ErrMemory, length, r.GPA)
		case r.GPA >= maxGPA || length > maxGPA-r.GPA:
			return nil, fmt.Errorf("%w: %d bytes at %#x are beyond what an address can name", ErrMemory, length, r.GPA)
		case i > 0 && r.GPA < end:
			return nil, fmt.Errorf("%w: the range at %#x begins before the one before it ends, at %#x", ErrMemory, r.GPA, end)
		}
		if err := r.checkExtents(); err != nil {
			return nil, err
		}
		end, bytes = r.GPA+length, bytes+length
		m.first = append(m.first, m.pages)
		m.pages += length >> pageShift
	}
	if bytes == 0 || bytes > maxBytes {
		return nil, fmt.Errorf("%w: %d bytes of RAM; it must be 1 to %d", ErrMemory, bytes, uint64(maxBytes))
	}
	return m, nil
}

func (r Range) checkExtents() error {
	var end uint64
	for _, e := range r.Extents {
		if e.Off%PageSize != 0 || e.Len%PageSize != 0 || e.Off < end ||
			e.Off > uint64(len(r.Data)) || e.Len > uint64(len(r.Data))-e.Off {
			return fmt.Errorf("%w: range at %#x: extent of %d bytes at %d", ErrMemory, r.GPA, e.Len, e.Off)
		}
		end = e.Off + e.Len
	}
	return nil
}

// extents returns the parts of the range to visit.
func (r Range) extents() []Extent {
	if r.Extents == nil {
		return []Extent{{0, uint64(len(r.Data))}}
	}
	return r.Extents
}

// Ranges returns the ranges, sorted by address. The caller must not change
// them.
func (m *Memory) Ranges() []Range { return m.ranges }

// Pages returns the number of pages.
func (m *Memory) Pages() uint64 { return m.pages }

// find returns the index of the range that holds gpa.
func (m *Memory) find(gpa uint64) (int, bool) {
	i, exact := slices.BinarySearchFunc(m.ranges, gpa, func(r Range, gpa uint64) int {
		switch {
		case r.GPA > gpa:
			return 1
		case gpa-r.GPA >= uint64(len(r.Data)):
			return -1
		}
		return 0
	})
	return i, exact
}

// PageAt returns the number of the page at a guest-physical address, and false
// if there is no RAM.
func (m *Memory) PageAt(gpa uint64) (uint64, bool) {
	i, ok := m.find(gpa)
	if !ok {
		return 0, false
	}
	return m.first[i] + (gpa-m.ranges[i].GPA)>>pageShift, true
}

// GPA returns the guest-physical address of a page, which must exist.
func (m *Memory) GPA(page uint64) uint64 {
	i, _ := m.rangeOf(page)
	return m.ranges[i].GPA + (page-m.first[i])<<pageShift
}

// Page returns the contents of a page, which must exist.
func (m *Memory) Page(page uint64) []byte {
	i, off := m.rangeOf(page)
	return m.ranges[i].Data[off : off+PageSize : off+PageSize]
}

// rangeOf returns the index of the range of a page and the page's place in it,
// in bytes.
func (m *Memory) rangeOf(page uint64) (int, uint64) {
	i, exact := slices.BinarySearch(m.first, page)
	if !exact {
		i--
	}
	return i, (page - m.first[i]) << pageShift
}

// bytes returns n bytes of RAM at an address, or nil if they are not all in one
// range.
func (m *Memory) bytes(gpa, n uint64) []byte {
	i, ok := m.find(gpa)
	if !ok {
		return nil
	}
	off := gpa - m.ranges[i].GPA
	if n > uint64(len(m.ranges[i].Data))-off {
		return nil
	}
	return m.ranges[i].Data[off : off+n : off+n]
}

// upTo returns at most n bytes of RAM at an address: what one range has of them.
func (m *Memory) upTo(gpa, n uint64) []byte {
	i, ok := m.find(gpa)
	if !ok {
		return nil
	}
	rest := m.ranges[i].Data[gpa-m.ranges[i].GPA:]
	return rest[:min(n, uint64(len(rest)))]
}
