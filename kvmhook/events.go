package kvmhook

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/uffd"
)

// read takes events from the kernel and answers faults, until the session ends.
func (s *session) read() {
	if err := s.readAll(); err != nil {
		s.fail(err)
	}
}

func (s *session) readAll() error {
	for s.ctx.Err() == nil {
		if err := s.await(); err != nil {
			return err
		}
		err := s.take()
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			return err
		}
		began := time.Now()
		again := s.retry
		s.retry = nil
		for _, a := range again {
			if err := s.fault(a, began); err != nil {
				return err
			}
		}
		for i := range s.messages.Len() {
			if m := s.messages.At(i); m.Event == uffd.EventPagefault {
				if err := s.pagefault(m, began); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// await waits until there are events, for a moment only if something is to be tried again.
func (s *session) await() error {
	fds := [2]unix.PollFd{{Fd: int32(s.fd.Fd()), Events: unix.POLLIN}, {Fd: int32(s.wake), Events: unix.POLLIN}}
	timeout := -1
	if len(s.retry) > 0 {
		timeout = 1 // ms
	}
	for {
		_, err := unix.Poll(fds[:], timeout)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("%w: poll: %w", ErrMemory, err)
		case fds[0].Revents&^unix.POLLIN != 0:
			return fmt.Errorf("%w: the userfaultfd reports an error (%#x)", ErrMemory, fds[0].Revents)
		}
		return nil
	}
}

// take reads what events there are, and applies those that change pages before any page can be installed again.
func (s *session) take() error {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.kept.taking()
	defer s.kept.taken()
	if err := s.fd.Read(&s.messages); err != nil {
		return err
	}
	if s.h.o.afterRead != nil {
		s.h.o.afterRead(&s.messages)
	}
	for i := range s.messages.Len() {
		if err := s.apply(s.messages.At(i)); err != nil {
			return err
		}
	}
	return nil
}

// apply follows a change of the VMM's memory. gate is held for writing.
func (s *session) apply(m uffd.Message) error {
	switch m.Event {
	case uffd.EventPagefault:
	case uffd.EventRemove, uffd.EventUnmap:
		s.removed(m.Start, m.End)
	case uffd.EventRemap:
		return s.remapped(m)
	case uffd.EventFork:
		unix.Close(m.Child)
		s.h.log.Warn("the VMM forked: its child's memory is not served")
	default:
		return fmt.Errorf("%w: event %#x, which is not known", ErrMemory, uint8(m.Event))
	}
	return nil
}

// removed settles the pages of [start, end), and lets those who wait for one of them ask again.
func (s *session) removed(start, end uint64) {
	for _, m := range *s.maps.Load() {
		base := m.base.Load()
		low, high := max(start, base), min(end, base+uint64(m.size))
		if low >= high {
			continue
		}
		page := uint64(m.page)
		first, last := int((low-base+page-1)/page), int((high-base)/page)
		if first >= last {
			continue
		}
		spared, asked, dropped := m.remove(first, last)
		s.h.stats.dropped.Add(int64(dropped) * m.page)
		s.h.stats.held.Add(-int64(dropped))
		s.h.stats.fates[droppedPage].Add(int64(dropped))
		s.h.stats.removals.Add(int64(last-first) * m.page)
		s.h.stats.spared.Add(int64(spared) * m.page)
		if asked > 0 {
			s.fd.Wake(m.address(first), int64(last-first)*m.page) // fails only where nobody can wait
		}
	}
}

// remapped follows a mapping that moved as a whole.
func (s *session) remapped(e uffd.Message) error {
	maps := append([]*mapping(nil), *s.maps.Load()...)
	for _, m := range maps {
		if m.base.Load() == e.Start && uint64(m.size) == e.End-e.Start {
			m.move(e.To)
			s.setMaps(maps)
			return nil
		}
	}
	return fmt.Errorf("%w: the VMM moved %d bytes from %#x to %#x, which is not one of its mappings", ErrMemory, e.End-e.Start, e.Start, e.To)
}
