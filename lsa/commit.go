package lsa

import (
	"lsad/lsa/format"
)

// drain commits, in order, every batch at the head of the queue that is
// written. Whoever finished writing a batch calls it.
func (a *Array) drain() {
	c := &a.commit
	c.mu.Lock()
	for {
		b := a.queue[c.head.Load()%queueLength].Load()
		if b == nil || !b.written.Load() {
			break
		}
		a.commitBatch(b)
		a.queue[c.head.Load()%queueLength].Store(nil)
		c.head.Add(1)
		b.wake <- struct{}{}
	}
	c.mu.Unlock()
	if a.append.full.Load() {
		a.wakeWriters()
	}
}

// commitBatch applies a batch to the map. commit.mu is held.
func (a *Array) commitBatch(b *batch) {
	if err := a.failed(); err != nil {
		// A hole below these LSNs could not be filled: after a crash they
		// would be cut, so they cannot be acknowledged.
		b.err = err
		return
	}
	for i := range b.packed {
		a.applyChange(&b.packed[i])
	}
	if b.apply != nil && b.err == nil {
		b.apply()
	}
	a.committed.Store(b.last)
}

// applyChange changes the map. The pages are pinned, commit.mu is held.
func (a *Array) applyChange(c *change) {
	switch c.kind {
	case format.EntryWrite:
		a.blocks.Write(c.layer, c.block, int(c.count), c.lsn, c.place, c.second, func(i int) uint32 { return c.crcs[i] })
	case format.EntryMove:
		a.applyMove(c)
	case format.EntryTrim:
		eachPageOf(c.block, c.count, func(block uint64, n int) { a.blocks.Unmap(c.layer, block, n, c.lsn) })
	case format.EntryZero:
		eachPageOf(c.block, c.count, func(block uint64, n int) { a.blocks.Zero(c.layer, block, n, c.lsn) })
	}
}

// applyMove follows the block if its layer was merged into another meanwhile.
func (a *Array) applyMove(c *change) {
	layer, ok := a.blocks.Layers.Get(c.layer)
	if planted(ruleMoveChecksLSN) && ok && !layer.Merged && len(c.crcs) > 0 {
		a.blocks.Write(c.layer, c.block, 1, c.oldLSN, c.place, 0, func(int) uint32 { return c.crcs[0] })
		return
	}
	for ok {
		if a.blocks.Move(layer.ID, c.block, c.oldLSN, c.from, c.place) {
			if planted(ruleMoveKeepsOther) && len(c.crcs) > 0 {
				a.blocks.Write(layer.ID, c.block, 1, c.oldLSN, c.place, 0, func(int) uint32 { return c.crcs[0] })
			}
			return
		}
		layer, ok = a.blocks.Layers.Get(layer.MergeInto)
	}
}
