package kvmhook

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

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
