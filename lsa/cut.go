package lsa

import (
	"encoding/json"

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

// takeCut collects the state at the committed LSN. Nothing commits meanwhile,
// so it takes memory copies only.
func (a *Array) takeCut() (*cut, error) {
	a.commit.mu.Lock()
	defer a.commit.mu.Unlock()
	a.blocks.PauseViews(a.ballast.full.Load()) // they can be done without
	number := a.checkpoint.number + 1
	c := &cut{lsn: a.committed.Load(), number: number, pages: a.blocks.Begin(a.cutNumber(number))}
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
	left := s.left.Load()
	if planted(ruleRememberMoves) {
		left = 0
	}
	return segmentRow{
		slot: slot, seg: seg, state: s.state, class: uint8(s.class.Load()), damaged: s.damaged,
		live: s.live.Load(), used: s.used, generation: s.generation, firstLSN: s.firstLSN, maxLSN: s.maxLSN,
		left: left,
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

func (a *Array) cutNumber(number uint64) uint64 {
	if planted(ruleNumbersGoOn) {
		return number + 1000
	}
	return number
}

func (a *Array) cutLSN(c *cut) uint64 {
	if planted(ruleCheckpointAtCut) {
		return c.lsn + 8
	}
	return c.lsn
}
