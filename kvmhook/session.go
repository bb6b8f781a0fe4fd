package kvmhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/uffd"
)

// errGone ends a session whose VMM has ended.
var errGone = errors.New("the VMM has ended")

// session serves one VMM.
type session struct {
	h     *Hook
	fd    *uffd.FD
	kept  *kept
	began time.Time
	total int64 // bytes mapped
	data  int64 // bytes of content among them

	gate sync.RWMutex
	maps atomic.Pointer[[]*mapping] // in order of address; changed with gate held for writing

	ctx  context.Context
	fail context.CancelCauseFunc
	wake int // eventfd that ends the reader's wait

	mapped  []byte    // the image, where the source is mapped
	near    Near      // the source, where it may have content at hand
	room    *heldRoom // for pages that are held back; nil: none are
	fetches fetchPool
	base    atomic.Int64 // bytes to fetch around a lone fault
	filled  atomic.Bool  // the fill has come to its end
	ended   atomic.Bool

	// Of the reader.
	messages uffd.Messages
	retry    []at
	zeroes   []byte // a huge page of zeros, once one was needed
}

// at is a page of a mapping.
type at struct {
	m    *mapping
	page int
}

func newSession(h *Hook, fd *uffd.FD, regions []Region, k *kept) *session {
	s := &session{h: h, fd: fd, kept: k, began: time.Now(), wake: -1}
	if m, ok := h.o.Source.(Mapped); ok {
		s.mapped = m.Bytes()
	}
	s.near, _ = h.o.Source.(Near)
	maps := make([]*mapping, 0, len(regions))
	for i, r := range regions {
		m := newMapping(r, h.zeros)
		k.attach(i, m, regions)
		s.total += m.size
		s.data += m.dataPages() * m.page
		maps = append(maps, m)
	}
	s.sample(maps)
	s.setMaps(maps)
	s.base.Store(leastFetch)
	return s
}

func (s *session) setMaps(maps []*mapping) {
	slices.SortFunc(maps, func(a, b *mapping) int { return cmp.Compare(a.base.Load(), b.base.Load()) })
	s.maps.Store(&maps)
}

// find is the page at an address of the VMM.
func (s *session) find(address uint64) (at, bool) {
	maps := *s.maps.Load()
	i, exact := slices.BinarySearchFunc(maps, address, func(m *mapping, a uint64) int { return cmp.Compare(m.base.Load(), a) })
	if !exact {
		i--
	}
	if i < 0 {
		return at{}, false
	}
	page, ok := maps[i].pageAt(address)
	return at{maps[i], page}, ok
}

// run serves until the VMM ends, the context does, or something fails. It always returns an error, errGone at best.
// Without a connection the VM is one that was served before.
func (s *session) run(ctx context.Context, conn *net.UnixConn) error {
	s.ctx, s.fail = context.WithCancelCause(ctx)
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		s.close()
		return fmt.Errorf("eventfd: %w", err)
	}
	s.wake = wake
	s.h.log.Info("a VMM is served", "taken_over", conn == nil, "mappings", len(*s.maps.Load()), "bytes", s.total, "content_bytes", s.data)
	var wg sync.WaitGroup
	wg.Go(func() {
		<-s.ctx.Done()
		unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		if conn != nil {
			conn.SetDeadline(time.Unix(1, 0))
		}
	})
	if conn == nil {
		s.wakeAll()
	}
	wg.Go(s.read)
	wg.Go(func() { s.watch(conn) })
	if !s.h.o.NoFill && !s.h.o.Record {
		s.fill(&wg)
	}
	wg.Wait()
	s.fetches.wait()
	err = context.Cause(s.ctx)
	// After an error of the memory it is not known whether everything was applied that events said.
	if err != errGone && !errors.Is(err, ErrMemory) && !s.h.o.killed {
		s.release(true) // what fails stays to be fetched by who goes on
	}
	s.ended.Store(true)
	s.close()
	return err
}

func (s *session) close() {
	if s.wake >= 0 {
		unix.Close(s.wake)
	}
	s.fd.Close()
	s.kept.close()
	s.fetches.close()
	s.room.close()
	if s.zeroes != nil {
		uffd.Unmap(s.zeroes)
	}
}

// watch ends the session when the VMM's process has ended. A VMM may close its connection and live on.
func (s *session) watch(conn *net.UnixConn) {
	for conn != nil {
		if _, err := conn.Read(make([]byte, 64)); err != nil {
			break // what it says after the handshake means nothing
		}
	}
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	for {
		if s.fd.Gone() {
			s.fail(errGone)
		}
		select {
		case <-s.ctx.Done():
			return
		case <-every.C:
		}
	}
}
