package kvmhook

import (
	"sync"
	"sync/atomic"
)

// States of a page.
const (
	missing  = iota // neither there nor asked for
	fetching        // its content has been asked for
	settled         // it is there, or was removed: content must not come any more
	poisoned
	held // its content has come, and is held back to see whether somebody asks for it
)

// mapping is a region with what is known of its pages.
type mapping struct {
	base   atomic.Uint64 // address in the VMM; a remapping changes it, with gate held for writing
	size   int64         // bytes
	offset int64         // in the image
	page   int64         // size of a page, in bytes
	zeros  bitmap        // of the whole image

	kept     []atomic.Uint64 // a bit for each page that is settled, for who goes on after us; nil for nobody
	keptBase *atomic.Uint64

	mu     sync.Mutex
	states []uint8 // per page
	// ahead is where recent fetches ended, each the start of what a sequential reader wants next.
	ahead    [8]stream
	aheadPos int

	sample *sampler          // nil: nothing is held back, or nothing more
	chosen map[int]bool      // fetching pages that are to be held back, and whether somebody waits for them
	held   map[int]*heldPage // those in state held
}

// stream is a sequential access that seems to be under way.
type stream struct {
	next  int // page
	pages int // of its last fetch
}

func newMapping(r Region, zeros bitmap) *mapping {
	m := &mapping{size: int64(r.Size), offset: int64(r.Offset), page: int64(r.PageSize), zeros: zeros}
	m.base.Store(r.Base)
	m.states = make([]uint8, r.Size/r.PageSize)
	for i := range m.ahead {
		m.ahead[i].next = -1
	}
	return m
}

func (m *mapping) pages() int { return len(m.states) }

// address of a page in the VMM.
func (m *mapping) address(page int) uint64 { return m.base.Load() + uint64(page)*uint64(m.page) }

// imageOffset of a page, in bytes.
func (m *mapping) imageOffset(page int) int64 { return m.offset + int64(page)*m.page }

// pageAt is the page at an address, and whether the mapping has it.
func (m *mapping) pageAt(address uint64) (int, bool) {
	base := m.base.Load()
	if address < base || address-base >= uint64(m.size) {
		return 0, false
	}
	return int((address - base) / uint64(m.page)), true
}

// zero says whether the image has a hole where the page is.
func (m *mapping) zero(page int) bool { return m.zeros.all(m.imageOffset(page), m.page) }

// dataPages is how many pages are not holes.
func (m *mapping) dataPages() (n int64) {
	for i := range m.pages() {
		if !m.zero(i) {
			n++
		}
	}
	return n
}

// verdict is what to do about a fault.
type verdict int

const (
	giveZeros verdict = iota // map zeros at [first, last)
	fetchRun                 // fetch [first, last), marked so
	underWay                 // somebody fetches it
	giveError                // it is poisoned
	giveHeld                 // it is held back
)

// extent is how many pages to take: about a lone fault, and at most.
type extent struct{ base, most int }

// zeroExtent is the extent of pages of zeros: they cost nothing but the look at their pages.
func (m *mapping) zeroExtent(e extent) extent {
	if m.page != smallPage {
		return e
	}
	return extent{max(e.base, leastZeros), mostFetch / smallPage}
}

// leastZeros is how many pages of zeros a lone fault gets, where they are small.
const leastZeros = 8

// decide says what to do about a fault, and marks the pages that it concerns. e is for pages with content.
func (m *mapping) decide(page int, e extent) (v verdict, first, last int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.states[page] {
	case settled:
		return giveZeros, page, page + 1
	case fetching:
		if _, ok := m.chosen[page]; ok {
			m.chosen[page] = true
		}
		return underWay, page, page + 1
	case held:
		return giveHeld, page, page + 1
	case poisoned:
		return giveError, page, page + 1
	}
	zero := m.zero(page)
	if zero {
		e = m.zeroExtent(e)
	}
	want := m.predict(page, e)
	first, last = m.around(page, want, zero)
	m.remember(last, want)
	if zero {
		m.mark(first, last, settled)
		return giveZeros, first, last
	}
	m.mark(first, last, fetching)
	m.choose(first, last, page)
	return fetchRun, first, last
}

// predict is how many pages to take: twice the last time's for a reader that goes on where it ended.
func (m *mapping) predict(page int, e extent) int {
	for i := range m.ahead {
		if s := &m.ahead[i]; s.next == page {
			s.next = -1
			return max(e.base, min(2*s.pages, e.most))
		}
	}
	return e.base
}

func (m *mapping) remember(next, pages int) {
	m.ahead[m.aheadPos] = stream{next, pages}
	m.aheadPos = (m.aheadPos + 1) % len(m.ahead)
}

// around is the run of missing pages of one kind about a page, within the aligned block of n pages.
func (m *mapping) around(page, n int, zero bool) (first, last int) {
	low := page - page%n
	high := min(low+n, m.pages())
	fits := func(i int) bool { return m.states[i] == missing && m.zero(i) == zero }
	for first = page; first > low && fits(first-1); first-- {
	}
	for last = page + 1; last < high && fits(last); last++ {
	}
	return first, last
}

func (m *mapping) mark(first, last int, state uint8) {
	for i := first; i < last; i++ {
		m.set(i, state)
	}
}

// set changes the state of a page. mu is held.
func (m *mapping) set(page int, state uint8) {
	m.states[page] = state
	if state != fetching {
		delete(m.chosen, page)
	}
	if state == settled && m.kept != nil {
		m.kept[page/64].Or(1 << (page % 64))
	}
}

// move notes where the mapping is from now on.
func (m *mapping) move(base uint64) {
	m.base.Store(base)
	if m.keptBase != nil {
		m.keptBase.Store(base)
	}
}

// settledData is how many pages with content are settled.
func (m *mapping) settledData() (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, state := range m.states {
		if state == settled && !m.zero(i) {
			n++
		}
	}
	return n
}

// claimScan is how many pages claim looks at before it lets faults have mu.
const claimScan = 16 << 10

// claim marks the next run of missing pages with content in [from, to), of at most n pages, as fetching. The run is
// empty where none was found yet, and the search goes on at its end; false means that there is none.
func (m *mapping) claim(from, to, n int) (first, last int, ok bool) {
	if from >= to {
		return to, to, false
	}
	to = min(to, from+claimScan)
	m.mu.Lock()
	defer m.mu.Unlock()
	fits := func(i int) bool { return m.states[i] == missing && !m.zero(i) }
	for first = from; first < to && !fits(first); first++ {
	}
	for last = first; last < to && last-first < n && fits(last); last++ {
		m.states[last] = fetching
	}
	m.choose(first, last, -1)
	return first, last, true
}

// wanting says whether pages with content are missing, and whether some are being fetched. What is neither when it is
// looked at stays so.
func (m *mapping) wanting() (lacks, waits bool) {
	for from := 0; from < m.pages(); from += claimScan {
		m.mu.Lock()
		for i := from; i < min(from+claimScan, m.pages()); i++ {
			lacks = lacks || m.states[i] == missing && !m.zero(i)
			waits = waits || m.states[i] == fetching
		}
		m.mu.Unlock()
	}
	return lacks, waits
}

// nextFetching is the first run of pages in [from, to) that are still fetching, of at most n.
func (m *mapping) nextFetching(from, to, n int) (first, last int, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for first = from; first < to && m.states[first] != fetching; first++ {
	}
	for last = first; last < to && last-first < n && m.states[last] == fetching; last++ {
	}
	return first, last, first < to
}

// change moves the pages of [first, last) that are in one state to another, and says how many were.
func (m *mapping) change(first, last int, from, to uint8) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := first; i < last; i++ {
		if m.states[i] == from {
			m.set(i, to)
			n++
		}
	}
	return n
}

// remove settles [first, last) whatever they were, except that what is lost stays so until it is removed: then its
// content matters no more. It returns how many were missing, fetching and held back; those never come.
func (m *mapping) remove(first, last int) (gone, asked, dropped int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := first; i < last; i++ {
		switch m.states[i] {
		case missing:
			if !m.zero(i) {
				gone++
			}
		case fetching:
			asked++
		case held:
			delete(m.held, i)
			dropped++
		}
		m.set(i, settled)
	}
	return gone, asked, dropped
}
