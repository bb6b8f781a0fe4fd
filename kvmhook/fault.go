package kvmhook

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/uffd"
)

// pagefault answers a fault that was read at began.
func (s *session) pagefault(m uffd.Message, began time.Time) error {
	s.h.stats.faults.Add(1)
	if kind := m.Flags & (uffd.FaultWriteProtect | uffd.FaultMinor); kind != 0 {
		return fmt.Errorf("%w: a fault at %#x of a kind (%#x) that the VMM must not register for", ErrMemory, m.Address, kind)
	}
	a, ok := s.find(m.Address)
	if !ok {
		return fmt.Errorf("%w: a fault at %#x, outside of the mappings that the VMM sent", ErrMemory, m.Address)
	}
	return s.fault(a, began)
}

// extent is how many pages of content to fetch about a fault.
func (s *session) extent(m *mapping) extent {
	switch {
	case m.page == hugePage:
		return extent{1, 1}
	case s.h.o.Record:
		return extent{recordChunk / smallPage, recordChunk / smallPage}
	case s.h.o.NoFill: // nothing comes that nobody asked for
		return extent{1, 1}
	}
	return extent{int(s.base.Load() / smallPage), mostFetch / smallPage}
}

func (s *session) fault(a at, began time.Time) error {
	c := &s.h.stats
	v, first, last := a.m.decide(a.page, s.extent(a.m))
	switch v {
	case fetchRun:
		c.fetched.Add(1)
		s.h.touched(a)
		s.fetch(a, first, last, began)
	case underWay:
		c.underWay.Add(1)
	case giveZeros:
		return s.giveZeros(a, first, last, began)
	case giveHeld:
		return s.giveHeld(a, began)
	case giveError:
		c.lost.Add(1)
		return s.poison(a)
	}
	return nil
}

// giveZeros maps zeros at the page of a fault, and at the others of [first, last) if that is as easy.
func (s *session) giveZeros(a at, first, last int, began time.Time) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	var err error
	if last-first > 1 {
		_, err = s.fd.Zero(a.m.address(first), int64(last-first)*a.m.page, true)
	}
	if last-first == 1 || err != nil {
		err = s.zeroPage(a)
	}
	switch err {
	case nil:
		s.h.stats.zero.Add(1)
	case unix.EEXIST, unix.ENOENT: // it is there, or was unmapped: who waits may look again
		s.h.stats.spurious.Add(1)
		s.fd.Wake(a.m.address(a.page), a.m.page)
	case unix.EAGAIN, unix.ENOMEM:
		s.h.stats.retried.Add(1)
		s.retry = append(s.retry, a)
		return nil
	default:
		return s.refused("zeros", err)
	}
	s.h.stats.served(time.Since(began))
	return nil
}

func (s *session) zeroPage(a at) error {
	if a.m.page == smallPage {
		_, err := s.fd.Zero(a.m.address(a.page), a.m.page, true)
		return err
	}
	if s.zeroes == nil {
		p, err := uffd.Map(hugePage)
		if err != nil {
			return err
		}
		s.zeroes = p
	}
	_, err := s.fd.Copy(a.m.address(a.page), s.zeroes, true)
	return err
}

// poison has whoever touches a page get a memory error.
func (s *session) poison(a at) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	switch _, err := s.fd.Poison(a.m.address(a.page), a.m.page); err {
	case nil:
		return nil
	case unix.EEXIST, unix.ENOENT:
		s.fd.Wake(a.m.address(a.page), a.m.page)
		return nil
	case unix.EAGAIN:
		s.retry = append(s.retry, a)
		return nil
	case unix.EINVAL:
		return fmt.Errorf("%w: the content of a page is lost, and this kernel cannot tell the guest (UFFDIO_POISON, Linux 6.6)", ErrMemory)
	default:
		return s.refused("poison", err)
	}
}

// refused makes an error of what the kernel does not do.
func (s *session) refused(what string, err error) error {
	if err == unix.ESRCH {
		return errGone
	}
	return fmt.Errorf("%w: the kernel does not install %s: %w", ErrMemory, what, err)
}
