package guestmem

import (
	"iter"
	"math/bits"
	"sync/atomic"
)

// A PageSet is a set of pages of a [Memory], by number. A nil *PageSet is an
// empty set that cannot grow.
type PageSet struct {
	words []uint64
	pages uint64 // that there are, in the set or not
}

// NewPageSet returns an empty set over a number of pages.
func NewPageSet(pages uint64) *PageSet {
	return &PageSet{words: make([]uint64, (pages+63)/64), pages: pages}
}

// Has says whether a page is in the set.
func (s *PageSet) Has(page uint64) bool {
	return s != nil && page < s.pages && s.words[page/64]>>(page%64)&1 == 1
}

// Count returns how many pages are in the set.
func (s *PageSet) Count() uint64 {
	if s == nil {
		return 0
	}
	n := 0
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return uint64(n)
}

// Add puts the n pages from first on into the set. They must exist. Calls may
// be concurrent with one another.
func (s *PageSet) Add(first, n uint64) {
	for n > 0 {
		shift := first % 64
		k := min(64-shift, n)
		atomic.OrUint64(&s.words[first/64], (^uint64(0)>>(64-k))<<shift)
		first, n = first+k, n-k
	}
}

// Remove takes a page, which must exist, out of the set. Calls may be
// concurrent with one another.
func (s *PageSet) Remove(page uint64) {
	atomic.AndUint64(&s.words[page/64], ^(uint64(1) << (page % 64)))
}

// Runs returns the longest runs of pages in the set, in order: the number of
// the first page of each, and how many they are.
func (s *PageSet) Runs() iter.Seq2[uint64, uint64] {
	return func(yield func(first, n uint64) bool) {
		if s == nil {
			return
		}
		for page := s.next(0, 0); page < s.pages; {
			end := s.next(page, ^uint64(0))
			if !yield(page, end-page) {
				return
			}
			page = s.next(end, 0)
		}
	}
}

// next returns the first page from page on that is in the set, where flip is 0,
// or that is not, where flip is all ones; the number of pages if there is none.
func (s *PageSet) next(page, flip uint64) uint64 {
	for page < s.pages {
		if w := (s.words[page/64] ^ flip) >> (page % 64); w != 0 {
			return min(page+uint64(bits.TrailingZeros64(w)), s.pages)
		}
		page = (page/64 + 1) * 64
	}
	return s.pages
}

// equal says whether two sets over the same pages have the same pages.
func (s *PageSet) equal(o *PageSet) bool {
	for i, w := range s.words {
		if w != o.words[i] {
			return false
		}
	}
	return true
}

// common returns the first page that is in both of two sets over the same pages.
func (s *PageSet) common(o *PageSet) (uint64, bool) {
	for i, w := range s.words {
		if both := w & o.words[i]; both != 0 {
			return uint64(i)*64 + uint64(bits.TrailingZeros64(both)), true
		}
	}
	return 0, false
}
