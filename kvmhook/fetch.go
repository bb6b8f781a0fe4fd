package kvmhook

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/uffd"
)

const (
	// leastFetch and mostFetch bound what is fetched about a fault, in bytes.
	leastFetch = 16 << 10
	mostFetch  = 512 << 10
	// maxFetches is how many demanded reads are under way at once; further ones wait for one to end.
	maxFetches = 64
	// bite is how much is installed at once with gate held, in bytes, where pages are small.
	bite = 256 << 10
)

var (
	// errLater says that the kernel put an installation off.
	errLater = errors.New("put off")
	// errElsewhere says that there is more to do than the reader may.
	errElsewhere = errors.New("not for the reader")
)

// fetch is a read that a fault demanded.
type fetch struct {
	s           *session
	a           at
	first, last int
	began       time.Time // the fault was read
	asked       time.Time
	room        []byte
	data        []byte // the content: in room, or where the source is mapped
}

// fetchPool owns the memory of fetches, and remembers those that wait for some.
type fetchPool struct {
	busy atomic.Int64 // demanded reads under way or waiting

	mu      sync.Mutex
	idle    []*fetch
	made    int
	backlog []fetch
	ended   sync.WaitGroup
}

func (p *fetchPool) wait() { p.ended.Wait() }

func (p *fetchPool) close() {
	for _, f := range p.idle {
		uffd.Unmap(f.room)
	}
}

// get returns a fetch to use, or says that one may be made. If neither, want was put into the backlog.
func (p *fetchPool) get(want fetch) (f *fetch, create bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		f, p.idle = p.idle[n-1], p.idle[:n-1]
		return f, false
	}
	if p.made < maxFetches {
		p.made++
		return nil, true
	}
	p.backlog = append(p.backlog, want)
	return nil, false
}

// fetch asks the source for the pages [first, last), which are marked as fetching.
func (s *session) fetch(a at, first, last int, began time.Time) {
	s.fetches.busy.Add(1)
	s.fetches.ended.Add(1)
	f, create := s.fetches.get(fetch{a: a, first: first, last: last, began: began})
	if create {
		room, err := uffd.Map(max(mostFetch, hugePage)) // takes memory where it is used only
		if err != nil {
			s.fail(err)
			s.fetches.ended.Done()
			return
		}
		f = &fetch{s: s, room: room}
	}
	if f == nil {
		return
	}
	f.a, f.first, f.last, f.began = a, first, last, began
	f.start(true)
}

// start asks for the content. The reader may go on with what is in memory already by itself, if it is the one that
// asks: that spares the guest the wait for another thread.
func (f *fetch) start(reader bool) {
	f.asked = time.Now()
	f.data = f.s.view(f.a.m, f.first, f.last)
	switch {
	case f.data == nil:
		f.data = f.room[:int64(f.last-f.first)*f.a.m.page]
		off := f.a.m.imageOffset(f.first)
		if reader && f.s.near != nil && f.s.near.TryReadAt(f.data, off) {
			f.finish(nil, true)
			return
		}
		f.s.h.o.Source.Start(f.s.ctx, f.data, off, f)
	case reader && uffd.Resident(f.data):
		f.finish(nil, true)
	default:
		go f.finish(nil, false) // fetchPool.wait waits for it
	}
}

// Done implements Completion.
func (f *fetch) Done(err error) { f.finish(err, false) }

// finish installs what has come. reader says that the reader itself does it, which must not wait for events.
func (f *fetch) finish(err error, reader bool) {
	s := f.s
	switch {
	case err == nil:
		s.h.stats.read.Add(int64(f.last-f.first) * f.a.m.page)
		s.adapt(time.Since(f.asked))
		if err = f.install(reader); err == errElsewhere {
			go f.finish(nil, false)
			return
		} else if err == errLater {
			f.a.m.change(f.first, f.last, fetching, missing)
			s.fd.Wake(f.a.m.address(f.first), int64(f.last-f.first)*f.a.m.page)
			err = nil
		}
	case errors.Is(err, ErrLost) && f.last-f.first > 1:
		f.alone()
		return
	case errors.Is(err, ErrLost):
		err = s.lose(f.a, err)
	}
	if err != nil {
		s.fail(err)
	}
	f.release()
}

// alone asks for the demanded page once more, without its neighbours: one of those may be the lost one. Who waits for
// one of them asks for it by itself.
func (f *fetch) alone() {
	m, page := f.a.m, f.a.page
	m.change(f.first, page, fetching, missing)
	m.change(page+1, f.last, fetching, missing)
	f.s.gate.RLock()
	f.s.fd.Wake(m.address(f.first), int64(f.last-f.first)*m.page)
	f.s.gate.RUnlock()
	f.first, f.last = page, page+1
	f.start(false)
}

// release takes up the next one of the backlog, or rests.
func (f *fetch) release() {
	p := &f.s.fetches
	p.busy.Add(-1)
	p.mu.Lock()
	if len(p.backlog) == 0 {
		p.idle = append(p.idle, f)
		p.mu.Unlock()
		p.ended.Done()
		return
	}
	next := p.backlog[0]
	p.backlog = append(p.backlog[:0], p.backlog[1:]...)
	p.mu.Unlock()
	p.ended.Done()
	f.a, f.first, f.last, f.began = next.a, next.first, next.last, next.began
	f.start(false)
}

// install puts the content in place, the demanded page and what follows it first if that is much.
func (f *fetch) install(reader bool) error {
	s, m := f.s, f.a.m
	near := f.last
	from := f.first
	if int64(f.last-f.first)*m.page > bite {
		from = f.a.page
		near = min(from+max(1, int(bite/m.page)), f.last)
	}
	all := int64(0)
	for i, part := range [3][2]int{{from, near}, {near, f.last}, {f.first, from}} {
		n, err := s.install(m, part[0], part[1], f.content(part[0], part[1]), false, reader)
		all += n
		if i == 0 && err != errLater {
			s.h.stats.served(time.Since(f.began))
		}
		if err != nil {
			return err
		}
	}
	one := min(all, m.page)
	s.h.stats.demandPage.Add(one)
	s.h.stats.around.Add(all - one)
	return nil
}

func (f *fetch) content(first, last int) []byte {
	m := f.a.m
	return f.data[int64(first-f.first)*m.page : int64(last-f.first)*m.page]
}

// adapt sizes what is fetched about a lone fault: the longer the way to the source, the more is worth taking at once.
func (s *session) adapt(took time.Duration) {
	want := int64(leastFetch)
	switch {
	case took > 2*time.Millisecond:
		want = 256 << 10
	case took > 400*time.Microsecond:
		want = 64 << 10
	}
	// A step at a time: one slow answer says little.
	if now := s.base.Load(); want > now {
		s.base.CompareAndSwap(now, 2*now)
	} else if want < now {
		s.base.CompareAndSwap(now, now/2)
	}
}

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
