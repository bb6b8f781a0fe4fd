package qemu

import (
	"math/bits"
	"sync/atomic"
)

// PageSet is a set of pages of an address space, numbered from 0. Pages may be added and looked up by many
// goroutines at once.
type PageSet struct {
	words []atomic.Uint64
	pages int64
}

// NewPageSet makes an empty set over an address space of that many pages.
func NewPageSet(pages int64) *PageSet {
	return &PageSet{words: make([]atomic.Uint64, (pages+63)/64), pages: pages}
}

// Len is the number of pages of the address space.
func (s *PageSet) Len() int64 { return s.pages }

// Has says whether a page is in the set.
func (s *PageSet) Has(page int64) bool {
	return s.words[page/64].Load()&(1<<(page%64)) != 0
}

// Add puts a page into the set, and says whether it was not there.
func (s *PageSet) Add(page int64) bool {
	bit := uint64(1) << (page % 64)
	return s.words[page/64].Or(bit)&bit == 0
}

// Remove takes a page out of the set.
func (s *PageSet) Remove(page int64) { s.words[page/64].And(^(uint64(1) << (page % 64))) }

// AddRange puts the pages [from, to) into the set.
func (s *PageSet) AddRange(from, to int64) {
	for from < to {
		n := min(64-from%64, to-from)
		s.words[from/64].Or(^uint64(0) >> (64 - n) << (from % 64))
		from += n
	}
}

// Count is the number of pages in the set.
func (s *PageSet) Count() int64 {
	var n int64
	for i := range s.words {
		n += int64(bits.OnesCount64(s.words[i].Load()))
	}
	return n
}

// NextMissing is the first page from page on that is not in the set, or Len if there is none.
func (s *PageSet) NextMissing(page int64) int64 {
	for page < s.pages {
		if absent := ^s.words[page/64].Load() >> (page % 64); absent != 0 {
			return min(page+int64(bits.TrailingZeros64(absent)), s.pages)
		}
		page += 64 - page%64
	}
	return s.pages
}

// copyBlock adds the pages of a block that a bitmap has, lowest first.
func (s *PageSet) copyBlock(b Block, bitmap []uint64) {
	first := b.Offset / PageSize
	for i, word := range bitmap {
		for word != 0 {
			s.Add(first + int64(i)*64 + int64(bits.TrailingZeros64(word)))
			word &= word - 1
		}
	}
}
