package crash

import (
	"errors"
	"sync/atomic"

	"lsad/internal/blockdev"
)

var (
	errInjected = errors.New("injected: input/output error")
	errDead     = errors.New("injected: the device does not answer")
)

// death of a device: from an instant on all of its operations fail.
type death struct {
	planned atomic.Bool
	slot    int
	after   int64 // operations of the site
	struck  atomic.Bool
}

// strikes returns the error of an operation of a device that is dead.
func (d *death) strikes(s *site, slot int) error {
	if !d.planned.Load() || d.slot != slot || s.count.Load() < d.after {
		return nil
	}
	if !d.struck.Swap(true) {
		s.r.troubled.Store(true)
		s.r.faulted.Store(true)
		s.mu.Lock()
		s.plan[s.count.Load()+1+s.rng.Int64N(8)] = 3 // before the array has coped with it, or just then
		s.mu.Unlock()
	}
	return errDead
}

// dead is the slot of the device that is dead, -1 if none is.
func (s *site) dead() int {
	if s.death.struck.Load() {
		return s.death.slot
	}
	return -1
}

// planTrouble has something fail in some lives.
func (r *Run) planTrouble(span int64) {
	r.inService = r.servingSlots()
	r.failed, r.foreign = nil, false
	roll := r.rng.IntN(10)
	if !r.cfg.Devices || roll < 2 {
		r.planFault(span)
		if r.failed != nil || r.hostFull { // what had to do with one copy is not known
			r.foreign = true
			r.spare.Store(noneToSpare)
		}
		return
	}
	spare := r.spare.Load()
	if roll > 6 || r.copiesOnly != 2 && !r.cfg.AnyDeaths || spare == noneToSpare || len(r.inService) < 2 {
		return
	}
	d := &r.site.death
	if d.slot = int(spare); spare == anyToSpare {
		d.slot = r.inService[r.rng.IntN(len(r.inService))]
	}
	d.after = r.site.count.Load() + r.rng.Int64N(span)
	r.spare.Store(int32(d.slot))
	d.planned.Store(true)
	r.stats.change(func(t *Totals) { t.Deaths++ })
}

// planFault has a device fail now and then, or the room below the devices end.
func (r *Run) planFault(span int64) {
	roll := r.rng.IntN(100)
	if r.cfg.Focus == Faults {
		roll /= 4
	}
	switch {
	case roll < 20 && len(r.inService) > 1:
		f := &fault{slot: r.inService[r.rng.IntN(len(r.inService))], kind: blockdev.OpSync, times: 1 + r.rng.IntN(3), err: errInjected, after: r.site.count.Load() + r.rng.Int64N(span)}
		switch r.rng.IntN(6) {
		case 0, 1:
			f.kind, f.lands = blockdev.OpWrite, r.rng.IntN(2) == 0
		case 2, 3: // so often that a record finds no place at all, and is voided
			f.kind, f.err, f.slot, f.lands = blockdev.OpWrite, blockdev.ErrNoSpace, -1, r.rng.IntN(2) == 0
			f.times = 1 + r.rng.IntN(len(r.inService)+2)
		}
		r.failed = f
		r.site.mu.Lock()
		r.site.fault = f
		r.site.mu.Unlock()
	case roll < 26:
		r.hostFull = true
		for _, m := range r.site.mems {
			if m != nil {
				m.SetSpace(m.Used() + r.rng.Int64N(6)*r.segment)
			}
		}
	}
}

// servingSlots are the devices in service.
func (r *Run) servingSlots() (slots []int) {
	for _, d := range r.a.Devices() {
		if d.State == "in service" {
			slots = append(slots, d.Slot)
		}
	}
	return slots
}
