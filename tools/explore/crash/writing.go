package crash

import "errors"

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
	w.changes.Add(1)
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
