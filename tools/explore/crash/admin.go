package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"lsad/lsa"
)

const (
	mostVolumes   = 4
	mostSnapshots = 3
	mostIslands   = 4
)

// change does one administrative change: next makes the catalogue after it. It
// says whether the change was made for sure. Run.admin is held.
func (r *Run) change(kind string, room bool, next func(c *catalog), do func(o *op) error) bool {
	o := &op{kind: kind, inv: r.clock.Add(1)}
	r.mu.Lock()
	c := r.catalogs[len(r.catalogs)-1].clone(o)
	next(c)
	r.catalogs = append(r.catalogs, c)
	r.mu.Unlock()
	err := do(o)
	if err != nil {
		o.failed = true
		r.noAdmin = true // the catalogue is this one or the one before
		r.expect(kind, err, room)
		return false
	}
	o.ack = r.clock.Add(1)
	r.mu.Lock()
	r.flushes = append(r.flushes, &op{kind: kind, inv: o.inv, ack: o.ack})
	r.mu.Unlock()
	r.stats.change(func(t *Totals) { t.AdminChanges++ })
	return true
}

func (r *Run) createVolume(ctx context.Context, rng *rand.Rand) error {
	r.admin.Lock()
	defer r.admin.Unlock()
	if r.noAdmin || len(r.current().volumes) >= mostVolumes {
		return nil
	}
	name := r.freshName("v")
	v := newVolume(name, (1+rng.IntN(mostIslands))*islandBlocks, r.drawCopies())
	if v.copies == 2 && len(r.servingSlots()) < 2 {
		return nil
	}
	ok := r.change("create", true, func(c *catalog) { c.volumes[v.name] = volumeState{vol: v, blocks: v.blocks} },
		func(*op) error { return r.makeVolume(ctx, v) })
	if !ok {
		return nil
	}
	return r.use(v)
}

func (r *Run) freshName(prefix string) string {
	r.names++
	return fmt.Sprint(prefix, r.names)
}

func (r *Run) current() *catalog {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.catalogs[len(r.catalogs)-1]
}

// use opens a new volume for the workload.
func (r *Run) use(v *volume) (err error) {
	if err = r.reopen(v); err == nil {
		r.mu.Lock()
		r.volumes = append(r.volumes, v)
		r.mu.Unlock()
	}
	return err
}

func (r *Run) reopen(v *volume) (err error) {
	v.h, err = r.a.OpenVolume(v.name, lsa.OpenOptions{Client: "workload"})
	return err
}

// drop takes a volume out of the workload. It is had alone.
func (r *Run) drop(v *volume) {
	v.unusable = true
	r.mu.Lock()
	r.volumes = slices.DeleteFunc(r.volumes, func(x *volume) bool { return x == v })
	r.mu.Unlock()
}

func (w *worker) snapshot() {
	w.admin.Lock()
	defer w.admin.Unlock()
	v := w.pick()
	if v == nil || w.noAdmin || len(w.current().volumes[v.name].snaps) >= mostSnapshots {
		return
	}
	s := &snapshot{name: w.freshName("s"), vol: v, blocks: v.blocks}
	ok := w.change("snapshot", true, func(c *catalog) {
		state := c.volumes[v.name]
		state.snaps = append(slices.Clone(state.snaps), s)
		c.volumes[v.name] = state
		s.op = c.op
	}, func(*op) error { return w.a.Snapshot(w.ctx, v.name, s.name) })
	if ok && w.rng.IntN(2) == 0 {
		w.pin(s)
	}
}

// pin reads a snapshot, checks it, and remembers what it holds for good.
func (w *worker) pin(s *snapshot) {
	s.vol.exclusive.Lock()
	defer s.vol.exclusive.Unlock()
	name := s.vol.name + "@" + s.name
	at := w.now("nothing")
	tags, err := readTags(w.a, name, s.blocks, at.mayFail(s.vol))
	if err == nil {
		o := &oracle{r: w.Run, at: at}
		o.bound, o.durable = o.at.when, o.at.when
		err = o.checkInstant(name, s, tags)
	}
	if w.mayHaveLost(s.vol, err) { // since the read began
		return
	}
	if err != nil {
		w.report(fmt.Errorf("fresh %w", err))
		return
	}
	if !slices.Contains(tags, unreadable) { // a device that is dead may be back in the next life
		s.pinned = tags
	}
}

// pickSnapshot draws a snapshot; pinned: one whose contents are known.
func (w *worker) pickSnapshot(pinned bool) *snapshot {
	v := w.pick()
	if v == nil || w.noAdmin {
		return nil
	}
	var all []*snapshot
	for _, s := range w.current().volumes[v.name].snaps {
		if !pinned || s.pinned != nil {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[w.rng.IntN(len(all))]
}

func (w *worker) unsnapshot() {
	w.admin.Lock()
	defer w.admin.Unlock()
	s := w.pickSnapshot(false)
	if s == nil {
		return
	}
	w.change("unsnapshot", false, func(c *catalog) {
		state := c.volumes[s.vol.name]
		state.snaps = slices.DeleteFunc(slices.Clone(state.snaps), func(x *snapshot) bool { return x == s })
		c.volumes[s.vol.name] = state
	}, func(*op) error { return w.a.DeleteVolume(w.ctx, s.vol.name+"@"+s.name) })
}

func (w *worker) cloneSnapshot() {
	w.admin.Lock()
	defer w.admin.Unlock()
	s := w.pickSnapshot(true)
	if s == nil || len(w.current().volumes) >= mostVolumes {
		return
	}
	v := newVolume(w.freshName("v"), s.blocks, s.vol.copies)
	v.clone = true
	for i, t := range s.pinned {
		v.cells[i] = []version{{tag: t}}
	}
	ok := w.change("clone", true, func(c *catalog) {
		c.volumes[v.name] = volumeState{vol: v, blocks: v.blocks, origin: s.vol.name + "@" + s.name}
	}, func(*op) error { return w.a.Clone(w.ctx, s.vol.name, s.name, v.name) })
	if ok {
		if err := w.use(v); err != nil {
			w.report(err)
		}
	}
}

// alone has a volume to itself, with no handle of it open, and opens it again
// if fn returns true. Otherwise the volume is not used any more.
func (w *worker) alone(v *volume, fn func() bool) {
	v.exclusive.Lock()
	defer v.exclusive.Unlock()
	v.h.Close()
	if !fn() {
		w.drop(v)
		return
	}
	if err := w.reopen(v); err != nil {
		w.report(err)
	}
}

func (w *worker) revert() {
	w.admin.Lock()
	defer w.admin.Unlock()
	s := w.pickSnapshot(true)
	if s == nil {
		return
	}
	v := s.vol
	w.alone(v, func() bool {
		v.grow(s.blocks)
		ok := w.change("revert", true, func(c *catalog) {
			state := c.volumes[v.name]
			state.blocks = s.blocks
			c.volumes[v.name] = state
			for i := range v.cells {
				t := tag(0)
				if i < len(s.pinned) {
					t = s.pinned[i]
				}
				v.cells[i] = append(v.cells[i], version{c.op, t})
			}
		}, func(*op) error { return w.a.Revert(w.ctx, v.name, s.name) })
		v.blocks = s.blocks
		return ok
	})
}

func (w *worker) resize() {
	w.admin.Lock()
	defer w.admin.Unlock()
	v := w.pick()
	if v == nil || w.noAdmin {
		return
	}
	to := (1 + w.rng.IntN(mostIslands)) * islandBlocks
	w.alone(v, func() bool {
		v.grow(to)
		ok := w.change("resize", true, func(c *catalog) {
			state := c.volumes[v.name]
			state.blocks = to
			c.volumes[v.name] = state
			for i := to * cellsPerBlock; i < v.blocks*cellsPerBlock; i++ {
				v.cells[i] = append(v.cells[i], version{c.op, 0})
			}
		}, func(*op) error { return w.a.ResizeVolume(w.ctx, v.name, volumeBytes(to), true) })
		v.blocks = to
		return ok
	})
}

func (w *worker) deleteVolume() {
	w.admin.Lock()
	defer w.admin.Unlock()
	v := w.pick()
	if v == nil || w.noAdmin || len(w.current().volumes) < 2 {
		return
	}
	w.alone(v, func() bool {
		w.change("delete", false, func(c *catalog) { delete(c.volumes, v.name) },
			func(*op) error { return w.a.DeleteVolume(w.ctx, v.name) })
		return false
	})
}
