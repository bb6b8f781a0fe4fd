package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"lsad/lsa"
	"lsad/lsa/format"
)

// worker is one client of the array.
type worker struct {
	*Run
	ctx context.Context
	rng *rand.Rand
}

// workload runs some steps, shared by a few workers, and a collector, which is restless that many times.
func (r *Run) workload(ctx context.Context, steps, restless int) {
	workers := r.cfg.Writers
	if workers == 0 {
		workers = 1 + r.rng.IntN(4)
	}
	stop := make(chan struct{})
	var collector, wg sync.WaitGroup
	seed := r.rng.Uint64()
	collector.Go(func() { r.collector(ctx, stop, rand.New(rand.NewPCG(seed, 2)), restless) })
	for range workers {
		w := &worker{r, ctx, rand.New(rand.NewPCG(r.rng.Uint64(), 3))}
		wg.Go(func() {
			defer r.catch()
			for range steps / workers {
				if ctx.Err() != nil || w.broken() {
					return
				}
				w.step()
			}
		})
	}
	wg.Wait()
	r.background.Wait()
	close(stop)
	collector.Wait()
}

func (r *Run) broken() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.violation != nil
}

// report stops the workload with a violation.
func (r *Run) report(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.violation == nil {
		r.violation = err
	}
}

// expect reports an error that nothing explains. room: it may be for want of room.
func (r *Run) expect(what string, err error, room bool) {
	switch {
	case err == nil:
	case errors.Is(err, syscall.ENOSPC) && room:
		r.stats.change(func(t *Totals) { t.RefusedNoRoom++ })
	case r.faulted.Load():
	default:
		r.report(fmt.Errorf("%s failed and nothing was wrong: %w", what, err))
	}
}

// expectOf reports an error of a change of a volume's data. A device that dies is
// no reason for one where there are two copies.
func (r *Run) expectOf(v *volume, what string, err error) {
	switch {
	case r.mayHaveLost(v, err):
	case err != nil && v.copies == 2 && r.site.dead() >= 0 && !errors.Is(err, syscall.ENOSPC):
		r.report(fmt.Errorf("%s of a volume with two copies failed as one device died: %w", what, err))
	default:
		r.expect(what, err, true)
	}
}

// mayHaveLost: the error is that of a block whose only copy is lost.
func (r *Run) mayHaveLost(v *volume, err error) bool {
	return v.copies == 1 && r.troubled.Load() &&
		(errors.Is(err, lsa.ErrDamaged) || errors.Is(err, lsa.ErrMissingDevice) || errors.Is(err, errDead))
}

func (w *worker) step() {
	roll := w.rng.IntN(200)
	if w.cfg.Focus == Collections && w.rng.IntN(6) == 0 {
		w.collect(w.ctx, w.rng)
		w.checkpoint()
	} else if w.cfg.Devices && w.rng.IntN(w.rareDevices()) == 0 {
		w.deviceStep()
	} else if roll < 176 {
		w.dataStep(roll)
	} else {
		w.arrayStep(roll)
	}
}

func (w *worker) dataStep(roll int) {
	v := w.pick()
	if v == nil {
		time.Sleep(time.Microsecond)
		return
	}
	v.exclusive.RLock()
	defer v.exclusive.RUnlock()
	if v.unusable {
		return
	}
	switch {
	case roll < 90:
		w.write(v)
	case roll < 98:
		w.writeLarge(v)
	case roll < 112:
		w.trim(v)
	case roll < 126:
		w.zero(v)
	case roll < 140:
		w.flush(v, "flush")
	case roll < 154:
		if w.write(v) {
			w.flush(v, "fua")
		}
	default:
		w.read(v)
	}
}

func (w *worker) pick() *volume {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.volumes) == 0 {
		return nil
	}
	return w.volumes[w.rng.IntN(len(w.volumes))]
}

// extent draws a few blocks, or a part of some.
func (w *worker) extent(v *volume, most int) cellRange {
	island := w.rng.IntN(v.blocks / islandBlocks)
	from := w.rng.IntN(islandBlocks)
	n := min(1+w.rng.IntN(most), islandBlocks-from)
	e := cellRange{(island*islandBlocks + from) * cellsPerBlock, 0}
	e.to = e.from + n*cellsPerBlock
	if w.rng.IntN(5) == 0 {
		e.from += w.rng.IntN(cellsPerBlock)
		e.to -= w.rng.IntN(cellsPerBlock)
		e.to = max(e.to, e.from+1)
	}
	return e
}

// begin starts an op that changes the ranges, whose units are locked.
func (w *worker) begin(v *volume, kind string, ranges []cellRange, tags []tag) *op {
	o := &op{kind: kind, inv: w.clock.Add(1)}
	for i, e := range ranges {
		for c := e.from; c < e.to; c++ {
			v.cells[c] = append(v.cells[c], version{o, tags[i]})
		}
	}
	return o
}

func (w *worker) end(o *op, err error) bool {
	if err != nil {
		o.failed = true
		return false
	}
	o.ack = w.clock.Add(1)
	if o.kind == "write" {
		w.mu.Lock()
		w.writes = append(w.writes, o)
		w.mu.Unlock()
	}
	w.stats.change(func(t *Totals) { t.Acknowledged++ })
	return true
}

func (w *worker) write(v *volume) bool {
	var ranges []cellRange
	for range 1 + w.rng.IntN(4) {
		ranges = append(ranges, w.extent(v, 4))
	}
	return w.writeRanges(v, ranges)
}

func (w *worker) writeLarge(v *volume) { w.writeRanges(v, []cellRange{w.extent(v, islandBlocks)}) }

func (w *worker) writeRanges(v *volume, ranges []cellRange) bool {
	v.units.lock(ranges)
	defer v.units.unlock(ranges)
	return w.writeLocked(v, ranges)
}

func (w *worker) writeLocked(v *volume, ranges []cellRange) bool {
	var tags []tag
	var offs []int64
	var data [][]byte
	for _, e := range ranges {
		t := tag(w.lastTag.Add(1))
		p := make([]byte, (e.to-e.from)*cellSize)
		for c := e.from; c < e.to; c++ {
			fillCell(p[(c-e.from)*cellSize:], t, c)
		}
		tags, offs, data = append(tags, t), append(offs, offset(e.from)), append(data, p)
	}
	o := w.begin(v, "write", ranges, tags)
	errs := make([]error, len(offs))
	v.h.WriteBatch(offs, data, errs)
	err := errors.Join(errs...)
	w.expectOf(v, "write", err)
	if err != nil {
		o.failed = true
		for _, e := range ranges {
			w.settleFailed(v, e)
		}
	}
	return w.end(o, err)
}

// settleFailed sees what a write that failed did. Where it did nothing, that is
// for good, as if what was there before had been written again.
func (w *worker) settleFailed(v *volume, e cellRange) {
	p := make([]byte, (e.to-e.from)*cellSize)
	o := &op{kind: "failure", inv: w.clock.Add(1)}
	if v.h.ReadAt(p, offset(e.from)) != nil || w.a.Status().Failure != "" {
		return // it could not even be voided: a restart decides
	}
	for c := e.from; c < e.to; c++ {
		versions := v.cells[c]
		if t, err := readCell(p[(c-e.from)*cellSize:][:cellSize], c); err == nil && versions[len(versions)-1].tag != t {
			v.cells[c] = append(versions, version{o, t})
		}
	}
	o.ack = w.clock.Add(1)
}

func (w *worker) trim(v *volume) {
	e := w.extent(v, islandBlocks)
	if w.rng.IntN(4) == 0 { // to the end of some later island
		last := e.from/cellsPerBlock/islandBlocks + w.rng.IntN(v.blocks/islandBlocks-e.from/cellsPerBlock/islandBlocks)
		e.to = (last + 1) * islandBlocks * cellsPerBlock
	}
	whole := cellRange{(e.from + cellsPerBlock - 1) / cellsPerBlock * cellsPerBlock, e.to / cellsPerBlock * cellsPerBlock}
	if whole.to <= whole.from {
		return
	}
	ranges := []cellRange{whole}
	v.units.lock(ranges)
	defer v.units.unlock(ranges)
	o := w.begin(v, "trim", ranges, []tag{0})
	err := v.h.Trim(offset(e.from), offset(e.to-1)+cellSize-offset(e.from))
	w.expect("trim", err, w.hostFull) // the reserve below a full file system is small
	w.end(o, err)
}

func (w *worker) zero(v *volume) {
	ranges := []cellRange{w.extent(v, islandBlocks)}
	v.units.lock(ranges)
	defer v.units.unlock(ranges)
	o := w.begin(v, "zeroes", ranges, []tag{0})
	e := ranges[0]
	err := v.h.WriteZeroes(offset(e.from), int64(e.to-e.from)*cellSize, w.rng.IntN(2) == 0)
	w.expectOf(v, "write zeroes", err)
	w.end(o, err)
}

// flush makes what was acknowledged before durable.
func (w *worker) flush(v *volume, kind string) {
	f := &op{kind: kind, inv: w.clock.Add(1)}
	err := v.h.Flush()
	w.expect("flush", err, false)
	if err == nil {
		w.durable(f)
	}
}

func (r *Run) durable(f *op) {
	f.ack = r.clock.Add(1)
	r.mu.Lock()
	r.flushes = append(r.flushes, f)
	r.mu.Unlock()
	r.stats.change(func(t *Totals) { t.FlushesSeen++ })
}

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
		if !w.checkpointSoon() {
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

// arrayStep does something to the array or to what volumes there are.
func (w *worker) arrayStep(roll int) {
	switch {
	case roll < 180:
		w.checkpoint()
	case roll < 185:
		w.collect(w.ctx, w.rng)
	case roll < 190:
		w.snapshot()
	case roll < 192:
		w.unsnapshot()
	case roll < 194:
		w.cloneSnapshot()
	case roll < 196:
		w.revert()
	case roll < 198:
		w.resize()
	case roll < 199:
		w.deleteVolume()
	default:
		if err := w.createVolume(w.ctx, w.rng); err != nil {
			w.report(err)
		}
	}
}

func (r *Run) checkpoint() {
	r.checkpointing.Add(1)
	c := &op{kind: "checkpoint", inv: r.clock.Add(1)}
	err := r.a.Checkpoint(context.Background())
	r.checkpointing.Add(-1)
	if err == nil {
		c.ack = r.clock.Add(1)
		r.mu.Lock()
		r.checkpoints = append(r.checkpoints, c)
		r.mu.Unlock()
		r.stats.change(func(t *Totals) { t.Checkpoints++ })
	}
	r.expect("checkpoint", err, false)
}

// collector makes room when a writer waits for it. Besides, so many times as restless says, it collects or makes a
// checkpoint at once: that has an end, since the watchdog would not see that all others wait while this goes on.
func (r *Run) collector(ctx context.Context, stop chan struct{}, rng *rand.Rand, restless int) {
	defer r.catch()
	for ; restless > 0; restless-- {
		select {
		case <-stop:
			return
		default:
		}
		if r.broken() || ctx.Err() != nil {
			return
		}
		if rng.IntN(2) == 0 {
			r.collect(ctx, rng)
		} else {
			r.checkpoint()
		}
	}
	for {
		select {
		case <-stop:
			return
		case <-r.spaceWanted:
			r.collect(ctx, rng)
			r.checkpoint()
		}
	}
}

// collect collects the segment with the most garbage of one device, if there is any to speak of.
func (r *Run) collect(ctx context.Context, rng *rand.Rand) {
	r.collecting.Add(1)
	defer r.collecting.Add(-1)
	devices := r.a.Devices()
	for _, slot := range rng.Perm(len(devices)) {
		if devices[slot].State != "in service" {
			continue // it would give no room
		}
		victim, least := -1, 1<<30
		r.a.Segments(slot, func(s lsa.SegmentInfo) bool {
			if s.State == "sealed" && !s.Damaged && s.Live > 0 && s.Live < min(least, s.Capacity*97/100) {
				victim, least = int(s.Segment), s.Live
			}
			return true
		})
		if victim < 0 {
			continue
		}
		_, err := r.a.Collect(ctx, slot, uint32(victim), nil)
		if err != nil && errors.Is(err, lsa.ErrInvalid) {
			continue // it was freed meanwhile
		}
		// In a full array there may be no room for what it moves: it has to wait
		// for a trim. That writers do not wait for it then, the watchdog sees.
		r.expect("collect", err, true)
		if err == nil {
			r.stats.change(func(t *Totals) { t.Collections++ })
		}
		return
	}
}
