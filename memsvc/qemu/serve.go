package qemu

import (
	"context"
	"fmt"
	"time"
)

// serve sends pages until the destination has all: what it asks for first.
func (s *session) serve(ctx context.Context, l *link) error {
	for {
		select { // what the destination says comes before more pages
		case m, ok := <-l.messages:
			if done, err := s.hear(l, m, ok); done || err != nil {
				return err
			}
			continue
		case <-s.interrupted:
			s.leave()
		case <-ctx.Done():
			return context.Cause(ctx)
		default:
		}
		wait, err := s.step(l)
		if err != nil {
			return err
		}
		s.tell(Running)
		if wait == 0 {
			continue
		}
		if done, err := s.idle(ctx, l, wait); done || err != nil {
			return err
		}
	}
}

// idle waits for the destination, for wait at most if that is not negative.
func (s *session) idle(ctx context.Context, l *link, wait time.Duration) (done bool, err error) {
	var timer <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer = t.C
	}
	select {
	case m, ok := <-l.messages:
		return s.hear(l, m, ok)
	case <-s.demand.wake:
	case <-s.interrupted:
		s.leave()
	case <-s.hold:
		s.hold = nil
		if s.recorder != nil {
			s.recorder.end()
		}
	case <-timer:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	return false, nil
}

// leave says that the end has to wait for a sign that the destination runs.
func (s *session) leave() {
	s.interrupted, s.leaving = nil, true
	s.tell(Running)
}

// hear handles a message while pages are served.
func (s *session) hear(l *link, m message, ok bool) (done bool, err error) {
	switch {
	case !ok:
		return false, l.lost()
	case m.kind == rpPong && m.value == pingLoaded:
		s.progress.ToRun = time.Since(s.began)
		if s.loaded != nil {
			s.loaded()
		}
		s.beginBackground()
	case m.kind == rpShut && m.value != 0:
		return false, fmt.Errorf("%w: it ended with status %d; its log says why", ErrRefused, m.value)
	case m.kind == rpShut && !s.ended:
		return false, fmt.Errorf("%w: it ended before it had all of its memory", ErrRefused)
	case m.kind == rpShut:
		s.tell(Complete)
		return true, nil
	}
	return false, nil
}

// step sends a batch. Without one it says how long to wait: for ever if that is negative.
func (s *session) step(l *link) (wait time.Duration, err error) {
	s.batch.begin()
	if err := s.addDemanded(); err != nil {
		return 0, err
	}
	if s.batch.pages() > 0 {
		if err := s.flush(l); err != nil {
			return 0, err
		}
		if s.served != nil {
			s.served()
			s.served = nil
		}
		return 0, nil
	}
	switch missing := s.sent.NextMissing(0); {
	case missing == s.sent.Len() && s.ended:
		return -1, nil
	case missing == s.sent.Len():
		s.ended = true
		return 0, s.write(l, append(appendRAMEnd(nil), typeEOF))
	case !s.fill || !s.background || s.hold != nil:
		return -1, nil
	}
	if wait := s.pace.wait(time.Now()); wait > 0 {
		return wait, nil
	}
	if err := s.addBackground(); err != nil {
		return 0, err
	}
	return 0, s.flush(l)
}

func (s *session) flush(l *link) error {
	s.batch.end()
	s.pace.sent(time.Now(), int64(len(s.batch.out)))
	s.progress.DataPages += int64(s.batch.dataPages)
	s.progress.ZeroPages += int64(s.batch.zeroPages)
	return s.write(l, s.batch.out)
}

// addDemanded adds what the destination asks for. The background goes on from there: neighbours are likely next.
func (s *session) addDemanded() error {
	for s.batch.room() > 0 {
		r, ok := s.demand.pop()
		if !ok {
			return nil
		}
		if s.recorder != nil {
			s.recorder.note(r)
		}
		// A request for a huge page is for more than a batch: then the batch is as large as it takes.
		end := r.first + r.count
		for page := r.first; page < end; {
			next, err := s.add(page, min(end, page+batchData))
			if err != nil {
				return err
			}
			page = next
		}
		s.cursor = end
	}
	return nil
}

// addBackground adds what is missing: of the order first, then from the cursor on.
func (s *session) addBackground() error {
	for s.batch.room() > 0 {
		page, ok := s.first.missing(s.sent)
		if ok {
			if _, err := s.addUnit(page, s.first.end(s.sent)); err != nil {
				return err
			}
			continue
		}
		page = s.sent.NextMissing(s.cursor)
		if page == s.sent.Len() {
			if page = s.sent.NextMissing(0); page == s.sent.Len() {
				return nil
			}
		}
		next, err := s.addUnit(page, s.sent.Len())
		if err != nil {
			return err
		}
		s.cursor = next
	}
	return nil
}

// addUnit adds pages before end from a missing one on: as many as the batch has room for, or where huge pages back the
// block at the destination, all of the huge page, in order, which the destination can only place as a whole.
func (s *session) addUnit(page, end int64) (next int64, err error) {
	b := s.blockOf(page)
	first, unit := b.Offset/PageSize, s.pageSize(b)/PageSize
	if unit == 1 {
		return s.add(page, min(end, page+s.batch.room(), first+b.Size/PageSize))
	}
	page = first + (page-first)/unit*unit
	end = page + unit
	for page < end {
		if page, err = s.add(page, min(end, page+batchData)); err != nil {
			return 0, err
		}
	}
	return end, nil
}

// add adds a page unless it was sent, and if it has data its neighbours before end that have. It returns the page
// after them. All of them are of one block, and batchData at most.
func (s *session) add(page, end int64) (next int64, err error) {
	if !s.sent.Add(page) {
		return page + 1, nil
	}
	b := s.blockOf(page)
	if s.zero.Has(page) {
		s.batch.addZero(b, page*PageSize)
		return page + 1, nil
	}
	next = page + 1
	for next < end && !s.zero.Has(next) && s.sent.Add(next) {
		next++
	}
	return next, s.batch.addRun(s.ram, b, page*PageSize, next-page)
}

// blockOf finds the block of a page.
func (s *session) blockOf(page int64) Block {
	for i := range s.state.Blocks {
		if b := &s.state.Blocks[i]; page*PageSize < b.Offset+b.Size {
			return *b
		}
	}
	panic("qemu: a page beyond the last block")
}
