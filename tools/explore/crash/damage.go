package crash

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa"
	"lsad/lsa/format"
)

// checkDamaged checks a state whose medium was damaged as well: the array may
// refuse to open, and reads may fail; what it returns must be right. Where the
// damage is on one device that can be spared, no read of a volume with two
// copies may fail either.
func (r *Run) checkDamaged(ctx context.Context, instants []*instant) error {
	if r.rng.IntN(2) == 0 && r.cfg.Focus != Damage {
		return nil
	}
	from := instants[r.rng.IntN(len(instants))]
	i := *from
	i.damaged, i.power, i.mems = true, true, nil
	var present []int
	for slot, m := range from.mems {
		if m != nil {
			m = m.KillClone(r.rng)
			present = append(present, slot)
		}
		i.mems = append(i.mems, m)
	}
	i.fs = from.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: r.rng})
	bad := present[r.rng.IntN(len(present))]
	canSpare := from.spare == anyToSpare
	if from.spare >= 0 && from.mems[from.spare] != nil { // it may have been removed
		bad, canSpare = int(from.spare), true
	}
	i.oneBad = canSpare && r.rng.IntN(4) > 0
	for range 1 + r.rng.IntN(mostDamage) {
		if !i.oneBad {
			bad = present[r.rng.IntN(len(present))]
		}
		r.damage(i.mems[bad])
	}
	kept := r.keep(&i)
	s := r.newSite(i.mems, i.fs, i.boot, 2)
	a, err := r.openState(ctx, s, &i)
	if err != nil {
		if errors.Is(err, lsa.ErrGap) || errors.Is(err, lsa.ErrDamaged) {
			r.stats.add(&i)
			return nil
		}
		return r.violated(i.String(), r.tell(ctx, kept, &i, fmt.Errorf("open: %w", err)))
	}
	if _, err := r.check(a, &i); err != nil {
		return r.violated(i.String(), r.tell(ctx, kept, &i, err))
	}
	r.stats.add(&i)
	_ = a.Close()
	return nil
}

// mostDamage is how many records are damaged at most.
const mostDamage = 4

// damage flips bits where something was written, mostly in a header.
func (r *Run) damage(m *blockdev.Mem) {
	var sector [512]byte
	for range 50 {
		at := format.SegmentsOffset + r.rng.Int64N((m.Size()-format.SegmentsOffset)/512)*512
		if m.ReadAt(sector[:], at) != nil || sector == [512]byte{} {
			continue
		}
		if _, header := format.PeekRecordHeader(sector[:]); header || r.rng.IntN(4) == 0 {
			mask := make([]byte, 1+r.rng.IntN(20))
			for i := range mask {
				mask[i] = byte(1 + r.rng.IntN(255))
			}
			m.Corrupt(at+r.rng.Int64N(512-20), mask)
			return
		}
	}
}

// damageOne flips bits of a device that can be spared, under the open array, in
// a segment that no recovery has to scan: in most of its sectors, or in a few.
func (w *worker) damageOne() {
	w.trouble.Lock()
	defer w.trouble.Unlock()
	slot := int(w.spare.Load())
	switch {
	case slot == noneToSpare || w.site.death.planned.Load():
		return
	case slot == anyToSpare:
		slots := w.servingSlots()
		if len(slots) < 2 {
			return
		}
		slot = slots[w.rng.IntN(len(slots))]
	}
	m := w.site.mems[slot]
	if m == nil {
		return
	}
	behind := w.a.Status().Checkpoint
	w.a.Segments(slot, func(s lsa.SegmentInfo) bool {
		if s.State != "sealed" || s.MaxLSN > behind || s.Live == 0 || w.rng.IntN(3) > 0 {
			return true
		}
		w.spare.Store(int32(slot))
		w.troubled.Store(true)
		w.troubles++
		every := 1 + w.rng.IntN(40)
		mask := make([]byte, w.segment)
		for at := w.rng.IntN(every*512) + 1; at < len(mask); at += every * 512 {
			mask[at] = byte(1 + w.rng.IntN(255))
		}
		m.Corrupt(format.SegmentsOffset+int64(s.Segment)*w.segment, mask)
		return false
	})
	w.stats.change(func(t *Totals) { t.DamagedAlive++ })
}
