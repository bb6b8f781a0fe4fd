package lsa

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

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
