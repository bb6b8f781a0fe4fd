package blockmap

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

// A delta is what a checkpoint stores of a page in which little changed since the one before: the entries that did.
// A page of a thousand blocks of which three were overwritten then costs 60 bytes instead of some 15,000. The store puts
// deltas and pages together when it reads or compacts them (fold.go).
//
// Its value is that of a page with another version byte. An entry of kind 0, which has no LSN, says that the page has none
// at that offset any more.
const deltaVersion = 2

// A page with fewer than deltasFrom entries is stored whole, and so is one of which more than a quarter changed.
const (
	deltasFrom = 64
	deltaShare = 4
)

// marks are the offsets of a page's entries that changed in a generation of checkpoints.
type marks [PageBlocks / 64]uint64

var marksPool = sync.Pool{New: func() any { return new(marks) }}

func (m *marks) set(off uint16, n int) {
	for i := int(off); i < int(off)+n; i++ {
		m[i/64] |= 1 << (i % 64)
	}
}

func (m *marks) count() (n int) {
	for _, w := range m {
		n += bits.OnesCount64(w)
	}
	return n
}

// mark notes that n entries from off on change. The shard is locked, as for all that follows.
func (p *page) mark(off uint16, n int) {
	if p.marks != nil {
		p.marks.set(off, n)
	}
}

// markAll has the page stored whole.
func (p *page) markAll() {
	if p.marks != nil {
		marksPool.Put(p.marks)
		p.marks = nil
	}
}

// unmarked begins to note what changes from here on, in a page that the store, or a checkpoint, has as it is.
func (m *Map) unmarked(p *page) {
	p.markAll()
	if len(p.entries) >= m.deltasFrom {
		p.marks = marksPool.Get().(*marks)
		*p.marks = marks{}
	}
}

// appendValue appends what a checkpoint is to store of the page.
func (m *Map) appendValue(b []byte, p *page) []byte {
	n := len(p.entries)
	if m.whole.Load() || p.marks == nil || n < m.deltasFrom || p.marks.count() > n/deltaShare {
		return EncodePage(b, p.entries)
	}
	return appendDelta(b, p.entries, p.marks)
}

// appendDelta appends the delta of the marked entries. What a layer inherits is not stored, so it is none of its own.
func appendDelta(b []byte, entries []Entry, marked *marks) []byte {
	b = append(b, deltaVersion)
	b = binary.AppendUvarint(b, uint64(marked.count()))
	var prev Entry
	i := 0
	for at, word := range marked {
		for ; word != 0; word &= word - 1 {
			e := Entry{Off: uint16(at*64 + bits.TrailingZeros64(word))}
			for i < len(entries) && entries[i].Off < e.Off {
				i++
			}
			if i < len(entries) && entries[i].Off == e.Off && entries[i].Own {
				e = entries[i]
			}
			b = appendEntry(b, &e, &prev)
		}
	}
	return b
}

// decodeDelta appends the entries of a delta to dst. Those of kind 0 are none. Errors wrap format.ErrInvalid.
func decodeDelta(dst []Entry, b []byte) ([]Entry, error) {
	if len(b) < 2 || len(b) > maxPageValue || b[0] != deltaVersion {
		return nil, badPage("delta of wrong version or length")
	}
	return decodeEntries(dst, b[1:], true, true)
}
