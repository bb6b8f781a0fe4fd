package blockdev

import (
	"math/bits"
	"sync/atomic"
)

// The contents of a Mem are pages, made when first written, in a two-level
// table that is copied on write. A clone costs the copy of the root; page and
// chunk copies follow only where one of the two sides writes.
const (
	pageSize       = 16 << 10
	sectorsPerPage = pageSize / SectorSize // fits the bits of a sectorMask
	chunkPages     = 512
)

type pageData [pageSize]byte

// sectorMask has a bit for each sector of a page, the first sector lowest.
type sectorMask uint32

const allSectors = ^sectorMask(0)

// sectorsOf is the mask of the sectors that bytes [from, to) of a page touch.
func sectorsOf(from, to int) sectorMask {
	first, end := from/SectorSize, (to+SectorSize-1)/SectorSize
	return allSectors << first & (allSectors >> (sectorsPerPage - end))
}

// first is the index of the lowest sector in the mask, count how many it has.
func (s sectorMask) first() int { return bits.TrailingZeros32(uint32(s)) }
func (s sectorMask) count() int { return bits.OnesCount32(uint32(s)) }

// reservedPage stands for a page that was allocated and never written. It
// belongs to nobody, so a write replaces it.
var reservedPage pageData

// chunk is a run of pages. A page may be changed in place only by the table
// whose token is beside it, and a chunk only by the table whose token it has.
type chunk struct {
	owner  uint64
	owners [chunkPages]uint64
	pages  [chunkPages]*pageData
}

// pageTable maps page numbers to pages; a page that is nil reads as zeros and
// takes no space. It has no lock of its own.
type pageTable struct {
	owner uint64
	root  []*chunk
	used  int64 // pages that are not nil
}

var lastOwner atomic.Uint64

func newPageTable(size int64) pageTable {
	const chunkSize = pageSize * chunkPages
	return pageTable{
		owner: lastOwner.Add(1),
		root:  make([]*chunk, (size+chunkSize-1)/chunkSize),
	}
}

// clone returns an independent table with the same contents. Both sides get
// new tokens: from now on nothing that they share belongs to either.
func (t *pageTable) clone() pageTable {
	t.owner = lastOwner.Add(1)
	return pageTable{
		owner: lastOwner.Add(1),
		root:  append([]*chunk(nil), t.root...),
		used:  t.used,
	}
}

func (t *pageTable) get(i int64) *pageData {
	c := t.root[i/chunkPages]
	if c == nil {
		return nil
	}
	return c.pages[i%chunkPages]
}

// owned says whether page i may be changed in place.
func (t *pageTable) owned(i int64) bool {
	c := t.root[i/chunkPages]
	return c != nil && c.owners[i%chunkPages] == t.owner
}

// set puts p (or nil) in place of page i. Only a page that nobody else can
// see may be given as owned.
func (t *pageTable) set(i int64, p *pageData, owned bool) {
	c := t.ownChunk(i / chunkPages)
	slot := i % chunkPages
	if c.pages[slot] != nil {
		t.used--
	}
	if p != nil {
		t.used++
	}
	c.pages[slot], c.owners[slot] = p, 0
	if owned {
		c.owners[slot] = t.owner
	}
}

func (t *pageTable) ownChunk(n int64) *chunk {
	c := t.root[n]
	switch {
	case c == nil:
		c = &chunk{owner: t.owner}
	case c.owner != t.owner:
		copied := *c
		c = &copied
		c.owner = t.owner
	default:
		return c
	}
	t.root[n] = c
	return c
}

// writable returns page i for changing in place, made or copied if need be.
func (t *pageTable) writable(i int64) *pageData {
	p := t.get(i)
	if p != nil && t.owned(i) {
		return p
	}
	fresh := new(pageData)
	if p != nil {
		*fresh = *p
	}
	t.set(i, fresh, true)
	return fresh
}

// read fills b from off.
func (t *pageTable) read(b []byte, off int64) {
	for len(b) > 0 {
		at := int(off % pageSize)
		n := min(len(b), pageSize-at)
		if p := t.get(off / pageSize); p != nil {
			copy(b[:n], p[at:])
		} else {
			clear(b[:n])
		}
		b, off = b[n:], off+int64(n)
	}
}

// eachPage calls f for each page that [off, off+n) touches, with the bytes
// [from, to) of it that are meant.
func eachPage(off, n int64, f func(page int64, from, to int)) {
	for n > 0 {
		from := off % pageSize
		step := min(n, pageSize-from)
		f(off/pageSize, int(from), int(from+step))
		off, n = off+step, n-step
	}
}

// missing counts the pages of a range that have no space yet.
func (t *pageTable) missing(off, n int64) int64 {
	var pages int64
	eachPage(off, n, func(page int64, _, _ int) {
		if t.get(page) == nil {
			pages++
		}
	})
	return pages
}
