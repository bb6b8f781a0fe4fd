package crash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lsad/internal/blockdev"
	"lsad/lsa"
	"lsad/lsa/format"
)

// mostDevices an array has at a time, and mostSlots in all.
const (
	mostDevices = 5
	mostSlots   = 16
)

// deviceStep does something to the devices.
func (w *worker) deviceStep() {
	if !w.membership.TryLock() {
		return
	}
	defer w.membership.Unlock()
	switch roll := w.rng.IntN(10); {
	case roll < 3:
		w.damageOne()
	case roll < 5:
		w.makeWhole(w.ctx)
	case roll < 6:
		w.scrub(w.ctx)
	case roll < 8 || len(w.servingSlots()) < 2:
		w.addDevice()
	default:
		w.removeDevice()
	}
}

// rareDevices: one step in so many is one of devices.
func (r *Run) rareDevices() int {
	if r.cfg.Focus == Losses {
		return 12
	}
	return 30
}

// crashSoon has the array crash a little later as well.
func (s *site) crashSoon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan[s.count.Load()+1+s.rng.Int64N(8)] = 2
}

// join puts a device into a slot. A crash leaves it out until remember is called.
func (s *site) join(slot int, m *blockdev.Mem) {
	s.watch(slot, m)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mems = slices.Clone(s.mems) // instants share it
	for len(s.mems) <= slot {
		s.mems = append(s.mems, nil)
	}
	s.mems[slot], s.joining, s.adding = m, slot, slot
}

func (s *site) remember() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joining = -1
	return nil
}

func (s *site) added() {
	s.mu.Lock()
	s.adding = -1
	s.mu.Unlock()
}

// leave takes a device that is no member out.
func (s *site) leave(slot int) *blockdev.Mem {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mems[slot]
	s.mems = slices.Clone(s.mems)
	s.mems[slot], s.joining, s.removing = nil, -1, -1
	return m
}

// blank is a device to add: a new one, or one that was a member, with all that
// it held but its superblocks.
func (r *Run) blank(slot int) *blockdev.Mem {
	if n := len(r.stale); n > 0 {
		m := r.stale[n-1].mem.KillClone(r.rng)
		zero := [][]byte{make([]byte, format.SuperblockSize)}
		if m.WriteVec(zero, format.SuperblockOffsetA) == nil && m.WriteVec(zero, format.SuperblockOffsetB) == nil && m.Sync() == nil {
			return m
		}
	}
	return blockdev.NewMem(fmt.Sprint("dev", slot), r.deviceSize)
}

func (w *worker) addDevice() {
	slot := len(w.a.Devices())
	if slot >= mostSlots || len(w.servingSlots()) >= mostDevices {
		return
	}
	m := w.blank(slot)
	w.site.join(slot, m)
	_, err := w.a.AddDevice(w.ctx, flaky{m, w.site, slot}, w.site.remember)
	w.site.added()
	if len(w.a.Devices()) <= slot {
		w.site.leave(slot)
	}
	w.expect("add device", err, false)
	if err == nil {
		w.site.crashSoon()
		w.stats.change(func(t *Totals) { t.Added++ })
	}
}

// removeDevice removes one of the devices, a dead one by force.
func (w *worker) removeDevice() {
	slots := w.servingSlots()
	slot, dead := slots[w.rng.IntN(len(slots))], w.site.dead()
	if dead >= 0 && w.site.mems[dead] != nil {
		slot = dead
	}
	w.site.mu.Lock()
	w.site.removing = slot
	w.site.mu.Unlock()
	_, err := w.a.RemoveDevice(w.ctx, slot, lsa.RemoveOptions{Force: slot == dead})
	switch {
	case err == nil:
		m := w.site.leave(slot)
		if slot == dead {
			w.stale = append(w.stale, leftBehind{m, w.clock.Load()})
		}
		w.site.crashSoon()
		w.stats.change(func(t *Totals) { t.Removed++ })
	case w.faulted.Load(): // some devices may know it as gone
	default:
		w.site.mu.Lock()
		w.site.removing = -1
		w.site.mu.Unlock()
		if !errors.Is(err, lsa.ErrInvalid) && !errors.Is(err, lsa.ErrNoSpace) && !(w.troubled.Load() && errors.Is(err, lsa.ErrDamaged)) {
			w.expect("remove device", err, false)
		}
	}
}

// scrub reads everything, and has repaired what can be.
func (r *Run) scrub(ctx context.Context) (*lsa.ScrubReport, error) {
	report, err := r.a.Scrub(ctx, 0)
	if err != nil {
		return nil, err
	}
	r.stats.change(func(t *Totals) { t.Scrubs++ })
	if report.Lost > 0 && r.copiesOnly == 2 && !r.foreign && r.spare.Load() != noneToSpare {
		r.report(fmt.Errorf("a scrub says that blocks with two copies are lost: %+v", report))
	}
	return report, nil
}

// makeWhole has all blocks of volumes with two copies get both where that is
// possible. If it succeeds, the array can do without any one device.
func (r *Run) makeWhole(ctx context.Context) {
	r.trouble.Lock()
	before, struck := r.troubles, r.site.death.struck.Load()
	r.trouble.Unlock()
	for range 20 {
		first, err := r.scrub(ctx)
		if err != nil {
			return
		}
		n, err := r.rebuild(ctx)
		if err != nil || len(r.servingSlots()) < 2 {
			return
		}
		if first.Bad > first.Lost || n > 0 || first.Missing > 0 && r.copiesOnly == 2 {
			continue
		}
		if first.Lost > 0 && r.copiesOnly == 2 || r.a.Checkpoint(ctx) != nil {
			return
		}
		r.trouble.Lock()
		if r.troubles == before && !r.foreign && (!r.site.death.planned.Load() || struck) {
			r.spare.Store(anyToSpare)
			r.stats.change(func(t *Totals) { t.Wholes++ })
		}
		r.trouble.Unlock()
		return
	}
}

// rebuild waits for one that is under way.
func (r *Run) rebuild(ctx context.Context) (int64, error) {
	for {
		n, err := r.a.Rebuild(ctx, 1<<40)
		if !errors.Is(err, lsa.ErrInUse) || ctx.Err() != nil {
			return n, err
		}
		time.Sleep(time.Millisecond)
	}
}
