package lsa

import (
	"context"
	"fmt"
	"sort"
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

// liveBlock is a block that a collection has to move.
type liveBlock struct {
	layer, block uint64
	lsn          uint64
	place        format.Place
	other        format.Place // of the other copy, zero if there is none
	crc          uint32
}

// Collect moves what is live in a sealed segment to others. The segment is
// unused once a checkpoint after it is durable. pace, if not nil, is called
// after each part with the time that it took, and may wait. Damaged blocks are
// reported and left: their segment stays.
func (a *Array) Collect(ctx context.Context, slot int, seg uint32, pace func(worked time.Duration) error) (moved int, err error) {
	d, err := a.beginCollect(slot, seg)
	if err != nil {
		return 0, err
	}
	defer a.endCollect(d, seg)
	begin := time.Now()
	live, err := a.liveIn(d, seg)
	if err != nil {
		return 0, fmt.Errorf("collect device %s segment %d: %w", d.dev.Name(), seg, err)
	}
	limit := min(a.batchBytes()/2, moveBytes) / format.BlockSize
	for len(live) > 0 {
		if err := ctx.Err(); err != nil {
			return moved, err
		}
		n := min(len(live), limit)
		if err := a.moveBlocks(d, seg, live[:n]); err != nil {
			return moved, fmt.Errorf("collect device %s segment %d: %w", d.dev.Name(), seg, err)
		}
		moved += n
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

// liveIn returns the blocks of a segment that the map has there. It reads the
// headers of the records, and no dead block.
func (a *Array) liveIn(d *device, seg uint32) ([]liveBlock, error) {
	var all []liveBlock
	a.append.mu.Lock()
	used, generation := d.segs[seg].used, d.segs[seg].generation
	a.append.mu.Unlock()
	err := a.eachHeader(d, seg, used, generation, func(h *format.RecordHeader, header []byte) error {
		place := format.MakePlace(d.slot, seg, h.Sector+uint32(h.Sectors))
		lsn := h.FirstLSN
		return format.DecodeEntries(header, h, func(e *format.Entry) error {
			at := lsn
			if lsn++; e.Kind == format.EntryMove {
				at = e.OldLSN
			}
			for i := range e.DataBlocks() {
				all = append(all, liveBlock{layer: e.Layer, block: e.Block + uint64(i), lsn: at, place: place.After(i), crc: e.CRC(i)})
			}
			place = place.After(e.DataBlocks())
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	sort.Slice(all, func(i, j int) bool {
		x, y := &all[i], &all[j]
		return x.layer < y.layer || x.layer == y.layer && x.block < y.block
	})
	live := all[:0]
	for _, b := range all {
		ok, err := a.stillLive(&b)
		if err != nil {
			return nil, err
		}
		if ok {
			live = append(live, b)
		}
	}
	return live, nil
}

// stillLive says whether the map has the block there, and sets its layer to
// the one that has it now and where the other copy is.
func (a *Array) stillLive(b *liveBlock) (bool, error) {
	l, ok := a.blocks.Layers.Get(b.layer)
	for ok {
		e, own, err := a.blocks.OwnEntry(l.ID, b.block)
		if err != nil {
			return false, err
		}
		if own && e.Has(b.place) && e.LSN == b.lsn {
			b.layer, b.other = l.ID, e.Other(b.place)
			return true, nil
		}
		l, ok = a.blocks.Layers.Get(l.MergeInto)
	}
	return false, nil
}

// eachHeader reads the headers of a segment's records, hopping over the data
// of long ones.
func (a *Array) eachHeader(d *device, seg, used uint32, generation uint64, fn func(h *format.RecordHeader, header []byte) error) error {
	w := headerWindow{d: d, seg: seg}
	for at := uint32(0); at < used; {
		first, err := w.sectors(at, 1)
		if err != nil {
			return err
		}
		h, ok := format.PeekRecordHeader(first)
		if !ok || h.Segment != seg || h.Sector != at || h.Generation != generation || at+h.TotalSectors() > d.segSectors() {
			at++
			continue
		}
		header, err := w.sectors(at, uint32(h.Sectors))
		if err != nil {
			return err
		}
		if !format.CheckRecordHeader(header, &h, a.super.secret) {
			at++
			continue
		}
		if err := fn(&h, header); err != nil {
			return err
		}
		at += h.TotalSectors()
	}
	return nil
}

// moveBlocks reads blocks, verifies them, and appends them elsewhere: on their
// own device if there is room, so that only the device that is collected works
// for it, and never where their other copy is.
func (a *Array) moveBlocks(d *device, seg uint32, live []liveBlock) error {
	buf := make([]byte, len(live)*format.BlockSize)
	bad := a.readLive(d, seg, live, buf)
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
	}
	for _, b := range groups {
		if err := a.submit(b); err != nil {
			return err
		}
	}
	return nil
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
	a.log.Error("a live block cannot be moved; it stays where it is", "layer", b.layer, "block", b.block, "error", err)
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
