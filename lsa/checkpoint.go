package lsa

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// cut is everything a checkpoint writes, as it was at one LSN.
type cut struct {
	lsn     uint64
	number  uint64
	pages   *blockmap.Checkpoint
	rows    []segmentRow
	ready   []segmentRow // of rows: may be opened once the checkpoint is durable
	emptied []segmentRow // of rows: unused once the checkpoint is durable, those in state ready at once
	batch   *pebble.Batch
	logged  int64 // log bytes when it was taken

	flushing int64 // bytes in memory of pages
}

// Checkpoint makes the map durable up to the LSN that is committed now, then
// makes segments available that nothing refers to any more. The whole of it
// enters the store as one batch, so the store always is the state at one LSN.
func (a *Array) Checkpoint(ctx context.Context) error {
	a.checkpoint.mu.Lock()
	defer a.checkpoint.mu.Unlock()
	if a.readOnly {
		return nil
	}
	begin := time.Now()
	c, err := a.takeCut()
	if err == nil && planted(ruleReuseAfterCheckpoint) {
		a.releaseEmptied(c)
		c.emptied = nil
	}
	if err == nil {
		err = a.writeCut(c)
	}
	if err == nil {
		err = a.witness(c.number)
	}
	if err != nil {
		a.cutFailed(c)
		return fmt.Errorf("checkpoint: %w", err)
	}
	c.pages.Done()
	a.checkpoint.lsn.Store(c.lsn)
	a.logBytes.Add(-c.logged)
	a.releaseSegments(c)
	a.counters.checkpoints.Add(1)
	a.counters.checkpointNanos.Add(int64(time.Since(begin)))
	return nil
}

// takeCut collects the state at the committed LSN. Nothing commits meanwhile,
// so it takes memory copies only.
func (a *Array) takeCut() (*cut, error) {
	a.commit.mu.Lock()
	defer a.commit.mu.Unlock()
	c := &cut{lsn: a.committed.Load(), number: a.checkpoint.number + 1, pages: a.blocks.Begin()}
	c.flushing = a.blocks.Stats().Flushing
	c.batch = a.db.NewBatchWithSize(a.batchSize(c.flushing))
	a.append.mu.Lock()
	c.logged = a.logBytes.Load()
	for _, d := range a.devs() {
		if d != nil {
			a.cutSegments(c, d)
		}
	}
	a.append.mu.Unlock()
	return c, a.cutCatalog(c)
}

// batchSize is room for the batch of a checkpoint with pages that take so many bytes in memory. Left to grow by doubling, it
// would leave as much garbage behind as it has, and copy megabytes at a time, for which the runtime's collector, and
// everybody with it, waits.
func (a *Array) batchSize(flushing int64) int {
	ratio := a.checkpoint.ratio
	if ratio == 0 {
		ratio = 0.5
	}
	return 256<<10 + int(float64(flushing)*ratio*1.1)
}

// noteRatio learns from a checkpoint, before the store has its batch, how large the next one will be.
func (a *Array) noteRatio(c *cut) {
	if c.flushing >= 1<<20 {
		a.checkpoint.ratio = min(max(float64(c.batch.Len())/float64(c.flushing), 0.005), 2)
	}
}

// cutSegments takes the rows that changed, and chooses which unused segments
// may be opened before the next checkpoint. append.mu and commit.mu are held.
func (a *Array) cutSegments(c *cut, d *device) {
	chosen := a.chooseReady(c, d)
	for i := range d.segs {
		s := &d.segs[i]
		// The device may go out of service meanwhile: what was chosen is what counts.
		makeReady := chosen[uint32(i)]
		empty := s.emptiedAt(c.lsn) && (makeReady || d.writable.Load())
		if !s.dirty.Load() && !makeReady && !empty {
			continue
		}
		s.dirty.Store(false)
		s.damaged = s.damaged && !empty
		row := s.row(d.slot, uint32(i))
		if makeReady {
			row.state = segReady
		}
		if planted(ruleReopenIsDurable) && s.state == segOpen && !d.isStream(uint32(i)) {
			row.state = segSealed
		}
		switch {
		case empty:
			c.emptied = append(c.emptied, row)
		case makeReady:
			c.ready = append(c.ready, row)
		}
		c.rows = append(c.rows, row)
	}
}

// emptiedAt says whether a checkpoint at that LSN refers to nothing in the segment.
func (s *segment) emptiedAt(lsn uint64) bool {
	return s.state == segSealed && s.live.Load() == 0 && s.maxLSN <= lsn && !s.collecting
}

// reuseShare of a device's segments, and at least reuseMin: with fewer unused,
// what is emptied is made ready at once instead of being unused first. It keeps
// its room below then, which is to be given back where there is no such need.
const (
	reuseShare = 0.02
	reuseMin   = 8
)

// chooseReady fills the window with segments that are unused, those first that
// have their room; where few are, also with those that this checkpoint empties.
func (a *Array) chooseReady(c *cut, d *device) map[uint32]bool {
	chosen := map[uint32]bool{}
	if !d.takesWrites() {
		return chosen
	}
	choose := func(most int, suits func(s *segment) bool) {
		for i := range d.segs {
			if len(chosen) >= most {
				return
			}
			if suits(&d.segs[i]) {
				chosen[uint32(i)] = true
			}
		}
	}
	want := a.window(d) - d.preparable() - len(d.prepared)
	choose(want, func(s *segment) bool { return s.state == segFree && s.allocated && !s.discarding })
	choose(want, func(s *segment) bool { return s.state == segFree && !s.allocated && !s.discarding })
	if !a.ballast.full.Load() && !planted(ruleReuseAfterCheckpoint) { // else it is given back
		few := max(reuseMin, int(reuseShare*float64(len(d.segs)))) - d.unused()
		choose(min(want, len(chosen)+max(0, few)), func(s *segment) bool { return s.emptiedAt(c.lsn) })
	}
	return chosen
}

func (s *segment) row(slot uint8, seg uint32) segmentRow {
	return segmentRow{
		slot: slot, seg: seg, state: s.state, class: uint8(s.class.Load()), damaged: s.damaged,
		live: s.live.Load(), used: s.used, generation: s.generation, firstLSN: s.firstLSN, maxLSN: s.maxLSN,
	}
}

// cutCatalog puts the changed volumes, layers and the state row into the batch.
// commit.mu is held.
func (a *Array) cutCatalog(c *cut) error {
	cat := a.catalog
	cat.mu.Lock()
	defer cat.mu.Unlock()
	byID := map[uint64]*volume{}
	for _, v := range cat.volumes {
		byID[v.ID] = v
	}
	put := func(key []byte, row any) error {
		value, err := json.Marshal(row)
		if err != nil {
			return err
		}
		return c.batch.Set(key, value, nil)
	}
	for id := range cat.dirtyVolumes {
		var err error
		if v := byID[id]; v != nil {
			err = put(idKey(keyVolume, id), v)
		} else {
			err = c.batch.Delete(idKey(keyVolume, id), nil)
		}
		if err != nil {
			return err
		}
	}
	for id, n := range a.layerSizes {
		if n.dirty || cat.dirtyLayers[id] {
			n.dirty = false
			cat.dirtyLayers[id] = true
		}
	}
	for id := range cat.dirtyLayers {
		l, ok := a.blocks.Layers.Get(id)
		var err error
		if ok {
			err = put(idKey(keyLayer, id), layerRow{l, a.layerCount(id).blocks.Load()})
		} else {
			err = c.batch.Delete(idKey(keyLayer, id), nil)
		}
		if err != nil {
			return err
		}
	}
	// Should this checkpoint fail, the next one finds all of these in the
	// batch that it retries: see cutFailed.
	clear(cat.dirtyVolumes)
	clear(cat.dirtyLayers)
	return put([]byte{keyState}, metaState{Version: format.Version, Array: a.super.array.String(), Epoch: a.epoch(), LSN: a.cutLSN(c), Number: c.number, NextID: cat.nextID})
}

func (a *Array) cutLSN(c *cut) uint64 {
	if planted(ruleCheckpointAtCut) {
		return c.lsn + 8
	}
	return c.lsn
}

// writeCut makes the log durable first, then the checkpoint.
func (a *Array) writeCut(c *cut) error {
	if !planted(ruleSyncBeforeCheckpoint) {
		if err := a.syncForCut(c.lsn); err != nil {
			return err
		}
	}
	if err := c.pages.WriteTo(c.batch); err != nil {
		return err
	}
	for i := range c.rows {
		r := &c.rows[i]
		if err := c.batch.Set(segmentKey(r.slot, r.seg), r.encode(), nil); err != nil {
			return err
		}
	}
	a.noteRatio(c)
	return a.applyToStore(c.batch)
}

// cutFailed marks all that the checkpoint would have written as still to be
// written.
func (a *Array) cutFailed(c *cut) {
	a.commit.mu.Lock()
	defer a.commit.mu.Unlock()
	c.pages.Failed()
	a.append.mu.Lock()
	for _, r := range c.rows {
		a.devs()[r.slot].segs[r.seg].dirty.Store(true)
	}
	a.append.mu.Unlock()
	a.catalog.mu.Lock()
	for _, v := range a.catalog.volumes {
		a.catalog.dirtyVolumes[v.ID] = true
	}
	a.catalog.mu.Unlock()
	for _, l := range a.blocks.Layers.All() {
		a.catalog.dirtyLayers[l.ID] = true
	}
	for r := c.batch.Reader(); ; {
		kind, key, _, ok, err := r.Next()
		if !ok || err != nil {
			break
		}
		if kind == pebble.InternalKeyKindDelete && len(key) == 9 && key[0] == keyLayer {
			a.catalog.dirtyLayers[idOf(key)] = true
		}
		if kind == pebble.InternalKeyKindDelete && len(key) == 9 && key[0] == keyVolume {
			a.catalog.dirtyVolumes[idOf(key)] = true
		}
	}
}

// releaseSegments makes ready what the checkpoint says may be opened, and
// unused what it says nothing refers to, once no read can be looking there.
func (a *Array) releaseSegments(c *cut) {
	a.append.mu.Lock()
	for _, r := range c.ready {
		d := a.devs()[r.slot]
		d.segs[r.seg].state = segReady
		d.free--
		d.ready = append(d.ready, r.seg)
	}
	a.append.mu.Unlock()
	a.releaseEmptied(c)
	kick(a.work.prepare)
	if len(c.emptied) > 0 || len(c.ready) > 0 {
		a.wakeWriters()
	}
	if len(c.emptied) > 0 && a.windowLow() {
		kick(a.work.checkpoint) // what is unused has to become ready
	}
}

// releaseEmptied makes unused, or ready, what nothing refers to.
func (a *Array) releaseEmptied(c *cut) {
	if len(c.emptied) > 0 && !planted(ruleQuiesceReaders) {
		a.readers.quiesce()
	}
	for _, r := range c.emptied {
		d := a.devs()[r.slot]
		if !a.tellEmptied(d, r.seg) {
			continue
		}
		if r.state == segReady {
			a.reused(d, r.seg)
		} else if err := a.freed(d, r.seg); err != nil {
			a.log.Warn("discard failed", "device", d.dev.Name(), "segment", r.seg, "error", err)
		}
	}
}
