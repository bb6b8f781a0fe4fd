package kvmhook

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// heldPage is one that is held back, in state held.
type heldPage struct {
	content []byte // stays as it is, and where it is
	fill    bool   // by the background fill, not around a fault
}

// fate is what became of a page that was held back.
type fate int

const (
	usedPage     fate = iota // a guest asked for it
	droppedPage              // it was removed
	releasedPage             // nobody asked for it in time
	fates
)

// choose takes pages of [first, last), which are marked as fetching, for such that are to be held back, but for the one
// that is asked for. mu is held.
func (m *mapping) choose(first, last, asked int) {
	if m.sample == nil {
		return
	}
	for i := first; i < last; i++ {
		if i != asked && m.sample.pick() {
			m.chosen[i] = false
		}
	}
}

// hold holds back what was chosen of [first, last), whose content has come, and returns these pages in order. Those that
// somebody waits for already are not held back: they were used, and waited says how many.
func (m *mapping) hold(first, last int, content []byte, fill, mapped bool, room *heldRoom) (pages []int, waited int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for page, asked := range m.chosen { // a few
		if page < first || page >= last {
			continue
		}
		delete(m.chosen, page)
		switch {
		case m.sample == nil || m.states[page] != fetching || room.full():
		case asked:
			waited++
		default:
			p := content[int64(page-first)*m.page : int64(page-first+1)*m.page]
			if p = room.keep(p, mapped); p != nil {
				m.held[page] = &heldPage{p, fill}
				m.set(page, held)
				pages = append(pages, page)
			}
		}
	}
	slices.Sort(pages)
	return pages, waited
}

// heldAt is the page that is held back, nil if it is not, or no longer.
func (m *mapping) heldAt(page int) *heldPage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held[page]
}

// heldFirst is any page that is held back.
func (m *mapping) heldFirst() (page int, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for page := range m.held {
		return page, true
	}
	return 0, false
}

// unhold ends that a page is held back, and says whether it was.
func (m *mapping) unhold(page int, state uint8) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[page] == nil {
		return false
	}
	delete(m.held, page)
	m.set(page, state)
	return true
}

// giveHeld answers a fault on a page that is held back.
func (s *session) giveHeld(a at, began time.Time) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	err := s.installHeld(a, usedPage)
	switch err {
	case nil:
		s.h.stats.heldFaults.Add(1)
		s.h.stats.served(time.Since(began))
	case unix.EAGAIN, unix.ENOMEM:
		s.h.stats.retried.Add(1)
		s.retry = append(s.retry, a)
		return nil
	}
	return err
}

// installHeld puts a page in place that is held back, unless it is there or was removed: then who waits for it looks
// again. gate is held for reading. unix.EAGAIN and unix.ENOMEM say that it is still held back.
func (s *session) installHeld(a at, why fate) error {
	p := a.m.heldAt(a.page)
	if p == nil {
		s.fd.Wake(a.m.address(a.page), a.m.page)
		return nil
	}
	switch _, err := s.fd.Copy(a.m.address(a.page), p.content, true); err {
	case nil:
		s.endHold(a, p, why)
	case unix.EEXIST, unix.ENOENT: // another one has just put it there, or it was unmapped
		s.endHold(a, p, why)
		s.fd.Wake(a.m.address(a.page), a.m.page)
	case unix.EFAULT: // the source's mapping has no such page any more: it is lost when somebody asks for it
		if a.m.unhold(a.page, missing) {
			s.h.stats.held.Add(-1)
		}
		s.fd.Wake(a.m.address(a.page), a.m.page)
	case unix.EAGAIN, unix.ENOMEM:
		return err
	default:
		return s.refused("content", err)
	}
	return nil
}

// endHold notes that a page is there.
func (s *session) endHold(a at, p *heldPage, why fate) {
	if !a.m.unhold(a.page, settled) {
		return // somebody else has noted it
	}
	c := &s.h.stats
	if p.fill {
		c.filled.Add(a.m.page)
	} else {
		c.around.Add(a.m.page)
	}
	c.held.Add(-1)
	c.fates[why].Add(1)
}

// release puts everything in place that is held back, and has nothing held back from now on. At the end of a session
// nobody takes events any more: what the kernel puts off then stays as it is, not noted as settled, for who goes on.
func (s *session) release(ends bool) error {
	for _, m := range *s.maps.Load() {
		m.mu.Lock()
		m.sample = nil
		m.mu.Unlock()
		for tries := 0; ; {
			page, ok := m.heldFirst()
			if !ok {
				break
			}
			s.gate.RLock()
			err := s.installHeld(at{m, page}, releasedPage)
			s.gate.RUnlock()
			if err == unix.EAGAIN || err == unix.ENOMEM {
				if ends {
					return nil
				}
				err = s.pause(&tries)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// releaseLater releases what is held back once the fill has ended some time ago.
func (s *session) releaseLater() {
	select {
	case <-s.h.o.after(holdFor):
		if err := s.release(false); err != nil {
			s.fail(err)
		}
	case <-s.ctx.Done():
	}
}

// holdFor is for how long after the fill pages are held back.
const holdFor = time.Minute
