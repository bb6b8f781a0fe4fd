package crash

import (
	"context"
	"slices"

	"lsad/lsa"
)

// events tells the collector that a writer waits for room.
type events Run

func (e *events) SegmentUsed(slot, unused int) {}

func (e *events) SpaceWanted() {
	select {
	case e.spaceWanted <- struct{}{}:
	default:
	}
}

// live lets the workload run on the open array, checks what crashes in the
// midst of it leave, and leaves the run with what one of them left.
func (r *Run) live(ctx context.Context) error {
	steps := 20 + r.rng.IntN(150)
	moments := 2 + r.rng.IntN(10)
	restless, operations := 0, int64(steps*2)
	if r.cfg.Restless && r.rng.IntN(4) > 0 {
		restless = 4 * steps
		operations *= 3 // many are those of checkpoints and collections
	}
	r.site.planCrashes(moments, operations, 3)
	r.site.jitter = true
	if r.cfg.Devices && r.spare.Load() != anyToSpare && r.rng.IntN(4) > 0 {
		r.makeWhole(ctx)
	}
	r.planTrouble(operations)
	r.workload(ctx, steps, restless)
	if r.violation != nil {
		return r.violated("workload", r.violation)
	}
	r.site.clearPlan()
	if err := r.checkAlive(); err != nil {
		return r.violated("reading while alive", err)
	}
	instants := r.site.take()
	if len(instants) == 0 {
		instants = append(instants, r.site.copyNow("nothing", r.rng.IntN(2) == 0))
	}
	closeErr := r.a.Close()
	if err := r.closed(closeErr); err != nil {
		return err
	}
	if err := r.checkDamaged(ctx, instants); err != nil {
		return err
	}
	if closeErr == nil && r.rng.IntN(6) == 0 {
		if err := r.checkAll(ctx, instants, false); err != nil {
			return err
		}
		return r.restart(ctx)
	}
	next, last := r.rng.IntN(len(instants)), len(instants)-1 // the one to go on with is opened last
	instants[next], instants[last] = instants[last], instants[next]
	return r.checkAll(ctx, instants, true)
}

// checkAlive checks the open array. What the array does on its own goes on meanwhile, and a device may die of it
// that was alive when the check began: what had one copy there may be errors since, and is looked at again.
func (r *Run) checkAlive() error {
	at := r.now("nothing")
	_, err := r.check(r.a, at)
	if err != nil && !at.troubled && r.troubled.Load() {
		_, err = r.check(r.a, r.now("nothing"))
	}
	return err
}

// restart goes on with an array that was closed in order.
func (r *Run) restart(ctx context.Context) error {
	i := r.site.copyNow("nothing", false)
	i.closed, i.checkpointing, i.collecting = true, false, false
	return r.checkAll(ctx, []*instant{i}, true)
}

// goOn makes what was seen the model of the next life.
func (r *Run) goOn(s *site, a *lsa.Array, seen *observation) {
	c := &catalog{volumes: map[string]volumeState{}}
	r.volumes = nil
	fresh := map[*volume]*volume{}
	for name, state := range seen.catalog.volumes {
		v := newVolume(name, state.blocks, state.vol.copies)
		for i, t := range seen.tags[state.vol] {
			v.cells[i] = []version{{tag: t}}
		}
		fresh[state.vol] = v
		r.volumes = append(r.volumes, v)
	}
	sortVolumes(r.volumes)
	for name, state := range seen.catalog.volumes {
		n := volumeState{vol: fresh[state.vol], blocks: state.blocks, origin: state.origin}
		for _, old := range state.snaps {
			n.snaps = append(n.snaps, &snapshot{name: old.name, vol: n.vol, blocks: old.blocks, pinned: seen.snaps[old]})
		}
		c.volumes[name] = n
	}
	for _, v := range r.volumes {
		h, err := a.OpenVolume(v.name, lsa.OpenOptions{Client: "workload"})
		if err != nil {
			panic(err) // the oracle has just read it
		}
		v.h = h
	}
	r.site, r.a = s, a
	r.catalogs, r.flushes, r.writes, r.noAdmin = []*catalog{c}, nil, nil, false
	r.checkpoints = nil
	r.faulted.Store(false)
	r.spare.Store(noneToSpare) // recovery may have found one copy of a record
	r.members = len(a.Devices())
	if s.removed >= 0 {
		s.leave(s.removed)
	}
	s.removing, s.removed = -1, -1
	s.mems = slices.Clone(s.mems[:min(len(s.mems), r.members)])
	r.former, r.recent = r.recent, nil
	for _, m := range s.mems {
		if m != nil && r.cfg.Devices {
			m = m.KillClone(r.rng)
		}
		r.recent = append(r.recent, m)
	}
	if r.hostFull {
		r.hostFull = false
		for _, m := range s.mems {
			if m != nil {
				m.SetSpace(1 << 50)
			}
		}
	}
}
