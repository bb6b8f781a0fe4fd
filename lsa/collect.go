package lsa

import (
	"context"
	"fmt"
	"time"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// SegmentInfo is what a collector may know of a segment.
type SegmentInfo struct {
	Segment  uint32
	State    string // free, ready, open, sealed
	Live     int    // blocks
	Capacity int    // blocks
	FirstLSN uint64 // the next one when it was opened: age is counted in changes
	MaxLSN   uint64 // of its records
	Class    int
	Damaged  bool // holds blocks that cannot be read
}

// Segments calls fn with each segment of a device until it returns false. fn
// is called with the append lock held.
func (a *Array) Segments(slot int, fn func(SegmentInfo) bool) {
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	d := a.devs()[slot]
	if d == nil {
		return
	}
	for i := range d.segs {
		s := &d.segs[i]
		if !fn(SegmentInfo{uint32(i), s.state.String(), int(s.live.Load()), int(d.segBlocks()), s.firstLSN, s.maxLSN, int(s.class.Load()), s.damaged || s.collecting}) {
			return
		}
	}
}

// Collect moves what is live in a sealed segment to others. The segment is
// unused once a checkpoint after it is durable. pace, if not nil, is called
// after each part with the time that it took, and may wait. Blocks that cannot
// be read, or are not what the map says, are reported and left: their segment
// stays until they are overwritten or deleted. moved does not count them.
func (a *Array) Collect(ctx context.Context, slot int, seg uint32, pace func(worked time.Duration) error) (moved int, err error) {
	d, err := a.beginCollect(slot, seg)
	if err != nil {
		return 0, err
	}
	defer a.endCollect(d, seg)
	begin := time.Now()
	live, err := a.liveIn(ctx, d, seg)
	if err != nil {
		return 0, fmt.Errorf("collect device %s segment %d: %w", d.dev.Name(), seg, err)
	}
	limit := min(a.batchBytes()/2, moveBytes) / format.BlockSize
	for len(live) > 0 {
		if err := ctx.Err(); err != nil {
			return moved, err
		}
		n := min(len(live), limit)
		m, err := a.moveBlocks(d, seg, live[:n])
		if err != nil {
			return moved, fmt.Errorf("collect device %s segment %d: %w", d.dev.Name(), seg, err)
		}
		moved += m
		live = live[n:]
		if pace != nil {
			if err := pace(time.Since(begin)); err != nil {
				return moved, err
			}
		}
		begin = time.Now()
	}
	return moved, nil
}

func (a *Array) beginCollect(slot int, seg uint32) (*device, error) {
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	if slot < 0 || slot >= len(a.devs()) || a.devs()[slot] == nil || int(seg) >= len(a.devs()[slot].segs) {
		return nil, fmt.Errorf("collect device %d segment %d: %w", slot, seg, ErrNotFound)
	}
	d := a.devs()[slot]
	s := &d.segs[seg]
	if s.state != segSealed || s.collecting || a.readOnly {
		return nil, fmt.Errorf("collect device %s segment %d, which is %v: %w", d.dev.Name(), seg, s.state, ErrInvalid)
	}
	s.collecting = true
	d.busy.Add(1)
	return d, nil
}

func (a *Array) endCollect(d *device, seg uint32) {
	a.append.mu.Lock()
	d.segs[seg].collecting = false
	d.segs[seg].dirty.Store(true)
	d.busy.Add(-1)
	a.append.mu.Unlock()
}

// moveBlocks reads blocks, verifies them, and appends them elsewhere: on their
// own device if there is room, so that only the device that is collected works
// for it, and never where their other copy is. It returns how many it could
// read: the others stay.
func (a *Array) moveBlocks(d *device, seg uint32, live []liveBlock) (moved int, err error) {
	m := movers.Get().(*mover)
	defer movers.Put(m)
	buf, bad := m.readLive(d, seg, live)
	groups := map[uint64]*batch{} // by slots to avoid
	defer func() {
		for _, b := range groups {
			b.release()
		}
	}()
	for i := range live {
		l, part := &live[i], buf[i*format.BlockSize:][:format.BlockSize]
		if bad[i] {
			entry := []blockmap.Entry{{Kind: blockmap.KindData, CRC: l.crc, LSN: l.lsn, Place: [2]format.Place{l.place}}}
			if err := a.readToMove(part, entry, l.other); err != nil {
				a.reportDamaged(d, seg, l, err)
				continue
			}
		}
		var avoid uint64
		if l.other != 0 {
			avoid = 1 << l.other.Device()
		}
		b := groups[avoid]
		if b == nil {
			b = newBatch(originMoved)
			b.avoid, b.prefer = avoid, d
			groups[avoid] = b
		}
		b.addMove(l.layer, l.block, l.lsn, l.place, l.crc, part)
		moved++
	}
	for _, b := range groups {
		if err := a.submit(b); err != nil {
			return 0, err
		}
	}
	return moved, nil
}

// readToMove reads one block, from its other copy if it must: moving it then
// repairs it.
func (a *Array) readToMove(p []byte, entry []blockmap.Entry, other format.Place) error {
	err := a.readPlace(p, entry, 0, false)
	if err == nil || other == 0 {
		return err
	}
	turn := a.readers.enter()
	defer a.readers.exit(turn)
	if err := a.readPlace(p, []blockmap.Entry{placed(&entry[0], other)}, 0, false); err != nil {
		return err
	}
	a.counters.repaired.Add(1)
	return nil
}

func (a *Array) reportDamaged(d *device, seg uint32, b *liveBlock, err error) {
	if more, ok := a.logs.damaged.Allow(time.Now()); ok {
		a.log.Error("a live block cannot be moved; it stays where it is", "layer", b.layer, "block", b.block, "error", err, "more_since_last", more)
	}
	a.append.mu.Lock()
	d.segs[seg].damaged = true
	d.segs[seg].dirty.Store(true)
	a.append.mu.Unlock()
}

// LSN is the last one committed: the clock in which segments are dated.
func (a *Array) LSN() uint64 { return a.committed.Load() }

// Counts returns how many segments a device has: unused ones, those that are
// empty and unused after the next checkpoint, and all.
func (a *Array) Counts(slot int) (unused, pending, total int) {
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	d := a.devs()[slot]
	if d == nil {
		return 0, 0, 0
	}
	for i := range d.segs {
		if s := &d.segs[i]; s.state == segSealed && s.live.Load() == 0 {
			pending++
		}
	}
	return d.unused(), pending, len(d.segs)
}

// CheckpointSoon asks for a checkpoint without waiting for it: it makes empty
// segments unused.
func (a *Array) CheckpointSoon() { kick(a.work.checkpoint) }
