package kvmhook

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// install puts content at those pages of [first, last) that are still being fetched, but for those that are held back,
// and returns how many bytes that were. Who waits for one of them goes on. fill says for whom it came.
//
// Where the kernel puts it off, the reader gets errLater, and others wait until the reader has taken the event.
func (s *session) install(m *mapping, first, last int, content []byte, fill, reader bool) (installed int64, err error) {
	if s.room == nil {
		return s.installPages(m, first, last, content, reader)
	}
	back, waited := m.hold(first, last, content, fill, s.mapped != nil, s.room)
	s.h.stats.fates[usedPage].Add(int64(waited))
	s.h.stats.held.Add(int64(len(back)))
	from := first
	for _, to := range append(back, last) {
		n, err := s.installPages(m, from, to, content[int64(from-first)*m.page:int64(to-first)*m.page], reader)
		installed += n
		if err != nil {
			return installed, err
		}
		from = to + 1
	}
	return installed, nil
}

// installPages is install where nothing is held back.
func (s *session) installPages(m *mapping, first, last int, content []byte, reader bool) (installed int64, err error) {
	step := max(1, int(bite/m.page))
	for page, tries := first, 0; page < last; {
		n, next, err := s.installRun(m, page, last, step, content[int64(page-first)*m.page:])
		installed += n
		page = next
		switch err {
		case nil:
			tries = 0
		case unix.EFAULT: // the source's mapping has no such page any more
			if reader {
				return installed, errElsewhere
			}
			if err := s.lose(at{m, page}, fmt.Errorf("%w: the source cannot be read", ErrLost)); err != nil {
				return installed, err
			}
		case unix.EAGAIN, unix.ENOMEM:
			s.h.stats.retried.Add(1)
			if reader {
				return installed, errLater
			}
			if err := s.pause(&tries); err != nil {
				return installed, err
			}
		default:
			return installed, s.refused("content", err)
		}
	}
	return installed, nil
}

// installRun installs the first run of pages in [page, last) that are still fetching, and returns the page to go on
// with. What it finds about the pages holds until they are installed.
func (s *session) installRun(m *mapping, page, last, step int, content []byte) (n int64, next int, err error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	from, to, ok := m.nextFetching(page, last, step)
	if !ok {
		s.h.stats.dropped.Add(int64(last-page) * m.page)
		return 0, last, nil
	}
	s.h.stats.dropped.Add(int64(from-page) * m.page)
	content = content[int64(from-page)*m.page : int64(to-page)*m.page]
	n, err = s.fd.Copy(m.address(from), content, true)
	if err == unix.EAGAIN && n > 0 {
		err = nil // why it stopped shows at the page where it did
	}
	done := from + int(n/m.page)
	m.change(from, done, fetching, settled)
	if err == unix.EEXIST || err == unix.ENOENT {
		// The page is there, or was unmapped. Its content is not wanted, and who waits may look again.
		s.h.stats.present.Add(int64(m.change(done, done+1, fetching, settled)) * m.page)
		s.fd.Wake(m.address(done), m.page)
		done, err = done+1, nil
	}
	return n, done, err
}

// pause waits a little, for the reader to take the event for which the kernel put an installation off, or for fetches.
func (s *session) pause(tries *int) error {
	*tries++
	t := time.NewTimer(min(20*time.Microsecond<<min(*tries, 10), 10*time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// lose gives up a page for good.
func (s *session) lose(a at, why error) error {
	if a.m.change(a.page, a.page+1, fetching, poisoned) == 0 {
		return nil // removed meanwhile
	}
	s.h.stats.poisoned.Add(a.m.page)
	s.h.log.Error("a page is lost: the guest gets a memory error where it touches it", "image_offset", a.m.imageOffset(a.page), "error", why)
	for tries := 0; ; {
		s.gate.RLock()
		_, err := s.fd.Poison(a.m.address(a.page), a.m.page)
		s.gate.RUnlock()
		switch err {
		case nil, unix.EEXIST, unix.ENOENT:
			return nil
		case unix.EAGAIN:
			if err := s.pause(&tries); err != nil {
				return err
			}
		default:
			return s.refused("poison", err)
		}
	}
}
