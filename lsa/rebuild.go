package lsa

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// DefaultRebuildRate bounds what a rebuild writes, in bytes a second.
const DefaultRebuildRate = 64 << 20

// rebuildAhead blocks are read side by side, since they lie anywhere. So many have
// a flash disk reach the usual rate, and what clients read of a slow one waits
// behind few.
const rebuildAhead = 8

// missing is a block that lacks a copy.
type missing struct {
	layer, block, lsn uint64
	bad               format.Place // zero: there is but one
	good              format.Place
	crc               uint32
}

// Rebuild gives every block of the volumes with two copies its second one again
// where that is missing, or lies on a device that is gone or out of service.
// What is left to do is seen from the map alone, so it may be broken off and
// begun anew at any time. rate is in bytes written a second, 0 for the default.
// It returns how many blocks got a copy, and the blocks that did not in the error.
func (a *Array) Rebuild(ctx context.Context, rate int64) (int64, error) {
	if a.readOnly {
		return 0, fmt.Errorf("rebuild: array opened degraded: %w", ErrReadOnly)
	}
	if a.writableDevices() < 2 {
		return 0, nil // there is nowhere to put a second copy
	}
	if rate == 0 {
		rate = DefaultRebuildRate
	}
	w := &walk{a: a, ctx: ctx, rate: rate, status: &a.rebuild}
	failed := 0
	var last error
	err := w.run(a.layersOfTwo, func(layer, page uint64, entries []blockmap.Entry) error {
		if planted(ruleRebuildAll) && page > 0 {
			return nil
		}
		groups := map[uint64][]missing{}
		for i := range entries {
			if m, ok := a.lacking(layer, page, &entries[i]); ok {
				groups[1<<m.good.Device()] = append(groups[1<<m.good.Device()], m)
			}
		}
		for avoid, group := range groups {
			for len(group) > 0 {
				n := min(len(group), a.batchBytes()/format.BlockSize/2)
				done, err := a.addCopies(group[:n], avoid)
				if err != nil && !errors.Is(err, ErrDamaged) {
					return err
				}
				if n -= done; n > 0 {
					failed, last = failed+n, err
				}
				w.status.blocks.Add(int64(done))
				group = group[done+n:]
				if err := w.pace(done * format.BlockSize); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d blocks have no copy that can be read: %w", failed, last)
	}
	if err != nil {
		err = fmt.Errorf("rebuild: %w", err)
	}
	return a.rebuild.blocks.Load(), err
}

// lacking says whether the block needs another copy, and can be given one.
func (a *Array) lacking(layer, page uint64, e *blockmap.Entry) (missing, bool) {
	m := missing{layer: layer, block: page*blockmap.PageBlocks + uint64(e.Off), lsn: e.LSN, good: e.Place[0], bad: e.Place[1], crc: e.CRC}
	if e.Place[1] != 0 {
		switch bad := [2]bool{a.away(e.Place[0]), a.away(e.Place[1])}; {
		case !bad[0] && !bad[1]:
			return m, false
		case bad[0] && !bad[1], bad[0] && a.devOf(e.Place[0]) == nil:
			m.good, m.bad = e.Place[1], e.Place[0]
		}
	}
	if a.devOf(m.good) == nil {
		return m, false // lost
	}
	return m, true
}

// addCopies reads blocks and appends them again, away from where they are. It
// returns how many; the error then says why not all.
func (a *Array) addCopies(group []missing, avoid uint64) (int, error) {
	b := newBatch(originMoved)
	defer b.release()
	b.avoid = avoid
	buf := make([]byte, len(group)*format.BlockSize)
	var bad error
	turn := a.readers.enter()
	for i := range min(rebuildAhead, len(group)) {
		a.prefetchBlocks(group[i].good, 1)
	}
	for i, m := range group {
		if i+rebuildAhead < len(group) {
			a.prefetchBlocks(group[i+rebuildAhead].good, 1)
		}
		p := buf[i*format.BlockSize:][:format.BlockSize]
		if err := a.readPlace(p, []blockmap.Entry{{Kind: blockmap.KindData, CRC: m.crc, Place: [2]format.Place{m.good}}}, 0, false); err != nil {
			bad = fmt.Errorf("block %d of layer %d: %w: %w", m.block, m.layer, ErrDamaged, err)
			continue
		}
		b.addMove(m.layer, m.block, m.lsn, m.bad, m.crc, p)
		if m.bad == 0 {
			b.add++
		}
	}
	a.readers.exit(turn)
	n := len(b.changes)
	if n == 0 {
		return 0, bad
	}
	// A rebuild takes no room from what keeps the array going.
	b.urgent = false
	if err := a.submit(b); err != nil {
		return 0, err
	}
	a.counters.rebuilt.Add(int64(n))
	return n, bad
}

// RebuildProgress says how far a rebuild is.
func (a *Array) RebuildProgress() Progress { return a.rebuild.progress() }

// needsRebuild: copies may be missing.
func (a *Array) needsRebuild() bool {
	if a.readOnly || !a.twoCopies.Load() || a.writableDevices() < 2 {
		return false
	}
	if a.recovery.OneCopy > 0 || a.counters.copiesMissed.Load() > 0 {
		return true
	}
	for _, d := range a.devs() {
		if d == nil || !d.writable.Load() {
			return true
		}
	}
	return false
}

// copiesMissing says why blocks of volumes with two copies have one and will not get another, "" if that is not so.
func (a *Array) copiesMissing() string {
	if a.readOnly || !a.twoCopies.Load() {
		return ""
	}
	if a.writableDevices() < 2 {
		return "fewer than two devices take writes: volumes with two copies get one; add a device"
	}
	if err := a.rebuildFailed.Load(); err != nil {
		return "second copies are missing: " + (*err).Error()
	}
	return ""
}

// rebuildLoop rebuilds when it is kicked, and once at the start.
func (a *Array) rebuildLoop() {
	for {
		var again <-chan time.Time
		if !a.needsRebuild() {
			a.rebuildFailed.Store(nil)
		} else {
			n, err := a.Rebuild(a.work.ctx, 0)
			a.rebuildFailed.Store(nil)
			switch {
			case a.work.ctx.Err() != nil:
				return
			case err != nil:
				a.rebuildFailed.Store(&err)
				a.log.Error("second copies are missing still; it will be tried again", "error", err)
				again = time.After(time.Minute)
			case n > 0:
				a.log.Info("second copies rebuilt", "blocks", n)
			}
		}
		select {
		case <-a.work.ctx.Done():
			return
		case <-again:
		case <-a.work.rebuild:
		}
	}
}
