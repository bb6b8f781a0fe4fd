package kvmhook

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/uffd"
)

// keep makes the memory file and hands it on. Without it the VM is served all the same.
func (h *Hook) keep(fd *uffd.FD, regions []Region) *kept {
	if h.o.Keep == nil {
		return nil
	}
	k, err := newKept(regions, h.o.Source.Size(), identityOf(h.o.Source))
	if err == nil {
		if err = h.o.Keep(fd.Fd(), int(k.file.Fd())); err != nil {
			k.close()
		}
	}
	if err != nil {
		h.log.Warn("if this hook is killed, no other can go on", "error", err)
		return nil
	}
	return k
}

// resume goes on where an earlier hook was.
func (h *Hook) resume(from *Kept) (*session, error) {
	n, err := unix.FcntlInt(from.Userfault.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err = errors.Join(err, from.Userfault.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrNotKept, err), from.State.Close())
	}
	fd, err := uffd.FromDescriptor(n)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrNotKept, err), from.State.Close())
	}
	k, regions, err := openKept(from.State, h.o.Source)
	if err != nil {
		return nil, errors.Join(err, fd.Close())
	}
	s := newSession(h, fd, regions, k)
	for _, m := range *s.maps.Load() {
		h.stats.present.Add(m.settledData() * m.page)
	}
	return s, nil
}

// Gone says whether the VMM has ended, so that nobody waits for another hook.
func (k *Kept) Gone() bool {
	n, err := unix.FcntlInt(k.Userfault.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false
	}
	fd, err := uffd.FromDescriptor(n)
	if err != nil {
		return false
	}
	defer fd.Close()
	return fd.Gone()
}

// wakeAll has everyone who waits for a page ask again: the hook that was asked is no more.
func (s *session) wakeAll() {
	for _, m := range *s.maps.Load() {
		s.fd.Wake(m.base.Load(), m.size) // fails only where nobody can wait
	}
}
