package crash

import (
	"fmt"
	"time"

	"lsad/lsa"
	"lsad/lsa/format"
)

// read compares what is there with what was written last.
func (w *worker) read(v *volume) {
	e := w.extent(v, 16)
	ranges := []cellRange{e}
	locked := w.rng.IntN(3) > 0
	if locked {
		v.units.lock(ranges)
		defer v.units.unlock(ranges)
	}
	p := make([]byte, (e.to-e.from)*cellSize)
	if !locked && w.rng.IntN(w.slowReads()) == 0 {
		h := &holdUp{fn: func(slot int, off int64) { w.reuse(v, slot, off) }}
		w.site.setDuringRead(h)
		defer h.running.Wait()
		defer w.site.setDuringRead(nil)
	}
	if err := v.h.ReadAt(p, offset(e.from)); err != nil {
		if !w.mayHaveLost(v, err) {
			w.report(fmt.Errorf("read failed: %w", err))
		}
		return
	}
	for c := e.from; c < e.to; c++ {
		t, err := readCell(p[(c-e.from)*cellSize:][:cellSize], c)
		if err != nil {
			w.report(fmt.Errorf("read of %s, cell %d: wrong bytes: %w", v.name, c, err))
			return
		}
		if !locked {
			continue
		}
		if !mayHold(latest(v.cells[c]), t) {
			s := sighting{versions: v.cells[c]}
			w.report(fmt.Errorf("read of %s, cell %d: write %d, want the last of%s", v.name, c, t, s.history()))
			return
		}
	}
}

// slowReads: one in so many unlocked reads is slow.
func (w *worker) slowReads() int {
	if w.cfg.Focus == Collections {
		return 2
	}
	return 20
}

// reuse does all it can to have the segment at off, which a read is about to
// look at, emptied and used again. The array must not let it happen: then a
// checkpoint waits for the read, and this gives up.
func (w *worker) reuse(v *volume, slot int, off int64) {
	if off < format.SegmentsOffset || !v.exclusive.TryRLock() { // the read may be another's
		return
	}
	defer v.exclusive.RUnlock()
	if v.unusable {
		return
	}
	seg := uint32((off - format.SegmentsOffset) / w.segment)
	if w.segmentState(slot, seg) != "sealed" {
		return
	}
	if _, err := w.a.Collect(w.ctx, slot, seg, nil); err != nil {
		return
	}
	used := false
	for range 40 {
		if w.ctx.Err() != nil || !w.checkpointSoon() {
			return
		}
		for range 4 {
			// The read may be another's, which has locked some of it.
			if e := []cellRange{w.extent(v, islandBlocks)}; v.units.tryLock(e) {
				w.writeLocked(v, e)
				v.units.unlock(e)
			}
		}
		state := w.segmentState(slot, seg)
		if used && state == "sealed" {
			return
		}
		used = used || state == "open" || state == "free" || state == "ready"
	}
}

func (w *worker) segmentState(slot int, seg uint32) (state string) {
	w.a.Segments(slot, func(s lsa.SegmentInfo) bool {
		state = s.State
		return s.Segment != seg
	})
	return state
}

// checkpointSoon says whether a checkpoint ends in a while.
func (w *worker) checkpointSoon() bool {
	done := make(chan struct{})
	w.background.Go(func() {
		w.checkpoint()
		close(done)
	})
	select {
	case <-done:
		return true
	case <-time.After(50 * time.Millisecond):
		return false
	}
}

func mayHold(versions []version, t tag) bool {
	for _, v := range versions {
		if v.tag == t {
			return true
		}
	}
	return false
}
