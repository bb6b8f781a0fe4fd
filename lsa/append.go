package lsa

import (
	"errors"
	"fmt"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// write appends the batch's records, commits what can be committed, and
// returns when the batch is acknowledged or failed.
func (a *Array) write(b *batch) error {
	if planted(ruleAckInOrder) {
		b.written.Store(true)
	}
	for i := range b.records {
		if err := a.appendRecord(b, &b.records[i]); err != nil {
			b.err = errors.Join(b.err, err)
		}
	}
	b.written.Store(true)
	a.drain()
	<-b.wake
	a.pending.Add(-b.add)
	return b.err
}

// appendRecord writes one record where it was reserved; failing that, on
// another device; failing that, it voids the record's LSNs and returns why.
func (a *Array) appendRecord(b *batch, r *record) error {
	err := a.writeRecord(b, r)
	for tries := 0; err != nil && tries < len(a.devs); tries++ {
		a.log.Error("append failed", "device", r.dev.dev.Name(), "lsn", r.first, "error", err)
		a.appendFailed(r.dev, r.seg, err)
		if planted(ruleVoidFailedAppend) {
			return err
		}
		if !a.relocateRecord(b, r) {
			return a.void(b, r, err)
		}
		err = a.writeRecord(b, r)
	}
	if err != nil {
		return a.void(b, r, err)
	}
	return nil
}

// writeRecord writes a record as it stands.
func (a *Array) writeRecord(b *batch, r *record) error {
	header := append(b.header[:0], make([]byte, format.HeaderFixed)...)
	if r.flags&format.FlagVoid == 0 {
		for i := range r.changes {
			header = r.changes[i].encode(header)
		}
	}
	h := format.RecordHeader{
		Flags: r.flags, Blocks: uint32(r.blocks),
		Device: uint16(r.dev.slot), Segment: r.seg, Sector: r.sector, Generation: r.generation,
		Epoch: a.epoch(), FirstLSN: r.first, LSNs: uint32(r.lsns), DurableLSN: a.flush.durable.Load(),
	}
	b.iovecs = append(b.iovecs[:0], nil)
	if r.flags&format.FlagVoid == 0 {
		h.Entries = uint16(len(r.changes))
		for i := range r.changes {
			if r.changes[i].dataBlocks() > 0 {
				b.iovecs = append(b.iovecs, r.changes[i].data)
			}
		}
	}
	b.header = format.PutRecordHeader(header, &h, a.super.secret)
	b.iovecs[0] = b.header
	if err := r.dev.dev.WriteVec(b.iovecs, r.dev.offset(r.seg, r.sector)); err != nil {
		return fmt.Errorf("append to device %s segment %d: %w", r.dev.dev.Name(), r.seg, err)
	}
	r.dev.noteAppended(r.seg, r.sector, r.sectors)
	if !r.dev.writable.Load() {
		kick(a.work.tidy)
	}
	a.counters.appends.Add(1)
	a.counters.bytes[b.class].Add(int64(r.blocks) * format.BlockSize)
	return nil
}

// appendFailed takes no more appends to that segment, and none to the device
// unless it was only full.
func (a *Array) appendFailed(d *device, seg uint32, err error) {
	a.append.mu.Lock()
	for c := range d.streams {
		if s := &d.streams[c]; s.open && s.seg == seg {
			a.seal(d, s)
		}
	}
	a.append.mu.Unlock()
	if !errors.Is(err, blockdev.ErrNoSpace) {
		a.takeOutOfService(d, err)
	}
}

// relocateRecord finds the record another place, on a writable device.
func (a *Array) relocateRecord(b *batch, r *record) bool {
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	for _, d := range a.devs {
		if d == nil || d == r.dev || !d.writable.Load() || !a.hasRoom(d, b.class, r.sectors, true) {
			continue
		}
		s := &d.streams[b.class]
		if s.open && d.segSectors()-s.next < r.sectors {
			a.seal(d, s)
		}
		if !s.open {
			a.openSegment(d, s, b.class)
		}
		header := r.sectors - uint32(r.blocks*format.BlockSectors)
		r.dev, r.seg, r.sector, r.generation = d, s.seg, s.next, d.segs[s.seg].generation
		r.flags |= format.FlagAgain
		s.next += r.sectors
		g := &d.segs[s.seg]
		g.used, g.maxLSN = s.next, max(g.maxLSN, r.first+r.lsns-1)
		g.dirty.Store(true)
		block := 0
		for i := range r.changes {
			if n := r.changes[i].dataBlocks(); n > 0 {
				r.changes[i].place = format.MakePlace(d.slot, r.seg, r.sector+header+uint32(block*format.BlockSectors))
				block += n
			}
		}
		return true
	}
	return false
}

// void logs that the record's LSNs were never acknowledged, so that recovery
// does not take them for a gap. It returns cause, and breaks the array if not
// even that can be written.
func (a *Array) void(b *batch, r *record, cause error) error {
	v := *r
	v.flags, v.blocks, v.entryBytes, v.sectors = format.FlagVoid, 0, 0, 1
	for range a.devs {
		if !a.relocateRecord(b, &v) {
			break
		}
		v.flags = format.FlagVoid
		if err := a.writeRecord(b, &v); err == nil {
			for i := range r.changes {
				r.changes[i].kind = 0
			}
			return cause
		} else {
			a.appendFailed(v.dev, v.seg, err)
		}
	}
	a.fail(fmt.Errorf("records %d to %d could neither be appended nor voided: %w", r.first, r.first+r.lsns-1, cause))
	return cause
}
