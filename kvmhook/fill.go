package kvmhook

import (
	"errors"
	"sync"
	"time"

	"lsad/kvmhook/uffd"
)

const (
	// leastFill and mostFill bound one read of the background fill, in bytes.
	leastFill = 64 << 10
	mostFill  = 1 << 20
	// fillQuick and fillSlow are the times between which a read of the fill should lie: a fault may have to wait for it.
	fillQuick = 3 * time.Millisecond
	fillSlow  = 20 * time.Millisecond
	// yieldMost is how long the fill stands back for faults before each read.
	yieldMost = 2 * time.Millisecond
)

// span is a range of pages.
type span struct {
	m          *mapping
	page, last int
}

// filler hands out what is to be filled, in order.
type filler struct {
	s *session

	mu    sync.Mutex
	order []span // what comes first
	maps  []*mapping
	page  int // of maps[0], to go on with
	left  int // workers
}

// fill starts the workers of the background fill.
func (s *session) fill(wg *sync.WaitGroup) {
	f := &filler{s: s, maps: *s.maps.Load(), left: s.h.o.FillWorkers}
	if w := s.h.o.WorkingSet; w != nil {
		for _, c := range w.Chunks {
			if a, ok := s.byImage(c * w.ChunkBytes); ok {
				n := max(1, int(w.ChunkBytes/a.m.page))
				f.order = append(f.order, span{a.m, a.page, min(a.page+n, a.m.pages())})
			}
		}
	}
	for range f.left {
		wg.Go(f.work)
	}
}

// byImage is the page where an offset of the image is mapped.
func (s *session) byImage(off int64) (at, bool) {
	for _, m := range *s.maps.Load() {
		if off >= m.offset && off < m.offset+m.size {
			return at{m, int((off - m.offset) / m.page)}, true
		}
	}
	return at{}, false
}

// take claims the next pages of the span, of at most size bytes or one page, and shortens it. See mapping.claim.
func (o *span) take(size int64) (m *mapping, first, last int, ok bool) {
	first, last, ok = o.m.claim(o.page, o.last, max(1, int(size/o.m.page)))
	o.page = last
	return o.m, first, last, ok
}

// next claims the next pages to fill, of about size bytes.
func (f *filler) next(size int64) (m *mapping, first, last int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.order) > 0 {
		o := &f.order[0]
		m, first, last, ok := o.take(mostFill)
		if !ok || o.page == o.last {
			f.order = f.order[1:]
		}
		if last > first {
			return m, first, last, true
		}
	}
	for len(f.maps) > 0 {
		o := span{f.maps[0], f.page, f.maps[0].pages()}
		m, first, last, ok := o.take(size)
		if f.page = o.page; !ok {
			f.maps, f.page = f.maps[1:], 0
		}
		if last > first {
			return m, first, last, true
		}
	}
	return nil, 0, 0, false
}

func (f *filler) work() {
	s := f.s
	room, err := uffd.Map(max(mostFill, hugePage))
	if err != nil {
		s.fail(err)
		return
	}
	defer uffd.Unmap(room)
	size := int64(256 << 10)
	for s.ctx.Err() == nil {
		f.yield()
		m, first, last, ok := f.next(size)
		if !ok && f.leave() {
			return
		}
		if !ok {
			continue
		}
		began := time.Now()
		if err := f.one(m, first, last, room); err != nil {
			s.fail(err)
			return
		}
		switch took := time.Since(began); {
		case took > fillSlow:
			size = max(size/2, leastFill)
		case took < fillQuick:
			size = min(size*2, mostFill)
		}
	}
}

// one fetches and installs pages that are marked as fetching.
func (f *filler) one(m *mapping, first, last int, room []byte) error {
	s := f.s
	var err error
	if v := s.view(m, first, last); v != nil {
		room = v
	} else {
		room = room[:int64(last-first)*m.page]
		err = s.h.o.Source.ReadAt(s.ctx, room, m.imageOffset(first))
	}
	if errors.Is(err, ErrLost) {
		return f.oneByOne(m, first, last, room, err)
	}
	if err != nil {
		return err
	}
	s.h.stats.read.Add(int64(len(room)))
	n, err := s.install(m, first, last, room, true, false)
	s.h.stats.filled.Add(n)
	if m.page == hugePage {
		s.h.stats.filledHuge.Add(n)
	}
	return err
}

// oneByOne finds out which pages of a run are lost.
func (f *filler) oneByOne(m *mapping, first, last int, room []byte, err error) error {
	if last-first == 1 {
		return f.s.lose(at{m, first}, err)
	}
	for page := first; page < last; page++ {
		if err := f.one(m, page, page+1, room); err != nil {
			return err
		}
	}
	return nil
}

// yield stands back while guests wait for pages, but not for ever.
func (f *filler) yield() {
	const moment = 100 * time.Microsecond
	for waited := time.Duration(0); f.s.fetches.busy.Load() > 0 && waited < yieldMost; waited += moment {
		time.Sleep(moment)
	}
}

// leave is where a worker finds nothing more to do. The last one stays until what faults have asked for has come, and goes
// on if some of that is missing again; if none is, all is filled. It says whether the worker is to end.
func (f *filler) leave() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left > 1 {
		f.left--
		return true
	}
	s := f.s
	for tries := 0; ; {
		missing, asked := false, s.fetches.busy.Load() > 0
		if !asked { // else it is not worth the look at all pages
			for _, m := range *s.maps.Load() {
				lacks, waits := m.wanting()
				missing, asked = missing || lacks, asked || waits
			}
		}
		switch {
		case missing:
			f.maps, f.page = *s.maps.Load(), 0
			return false
		case !asked:
			s.filled.Store(true)
			s.h.log.Info("everything is resident: the source is needed no more", "seconds", time.Since(s.began).Seconds())
			s.releaseLater()
			return true
		}
		if s.pause(&tries) != nil {
			return true
		}
	}
}
