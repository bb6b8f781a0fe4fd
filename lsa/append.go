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

// appendRecord writes one record where it was reserved; failing that, in another
// place, as many times as there are devices; failing that, it voids the record's LSNs and returns why.
func (a *Array) appendRecord(b *batch, r *record) error {
	if r.second.dev != nil {
		return a.appendTwo(b, r)
	}
	err := a.writeRecord(b, r)
	for tries := 0; err != nil && tries < len(a.devs()); tries++ {
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
		a.appendFailed(r.dev, r.seg, err)
		return a.void(b, r, err)
	}
	return nil
}

// writeRecord writes a record that has one copy as it stands.
func (a *Array) writeRecord(b *batch, r *record) error {
	if err := a.put(b, r, &r.placement, &b.out[0]); err != nil {
		return err
	}
	a.appended(b, r, &r.placement, nil)
	return nil
}

// put writes one copy of a record.
func (a *Array) put(b *batch, r *record, p *placement, out *output) error {
	header := append(out.header[:0], make([]byte, format.HeaderFixed)...)
	if r.flags&format.FlagVoid == 0 {
		for i := range r.changes {
			header = r.changes[i].encode(header)
		}
	}
	h := format.RecordHeader{
		Flags: r.flags, Blocks: uint32(r.blocks),
		Device: uint16(p.dev.slot), Segment: p.seg, Sector: p.sector, Generation: p.generation,
		Epoch: a.epoch(), FirstLSN: r.first, LSNs: uint32(r.lsns), DurableLSN: a.flush.durable.Load(),
	}
	out.iovecs = append(out.iovecs[:0], nil)
	if r.flags&format.FlagVoid == 0 {
		h.Entries = uint16(len(r.changes))
		for i := range r.changes {
			if r.changes[i].dataBlocks() > 0 {
				out.iovecs = append(out.iovecs, r.changes[i].data)
			}
		}
	}
	out.header = format.PutRecordHeader(header, &h, a.super.secret)
	out.iovecs[0] = out.header
	if err := p.dev.dev.WriteVec(out.iovecs, p.dev.offset(p.seg, p.sector)); err != nil {
		p.dev.unsyncedSectors.Add(-int64(r.sectors))
		return fmt.Errorf("append to device %s segment %d: %w", p.dev.dev.Name(), p.seg, err)
	}
	return nil
}

// appended remembers a copy of a record until it is synced. other has another
// copy of it, nil if none has.
func (a *Array) appended(b *batch, r *record, p *placement, other *device) {
	p.dev.noteAppended(recordRef{seg: p.seg, sector: p.sector, sectors: r.sectors, other: other})
	if !p.dev.writable.Load() {
		kick(a.work.tidy)
	}
	a.counters.appends.Add(1)
	a.counters.bytes[b.origin].Add(int64(r.blocks) * format.BlockSize)
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

// relocateRecord finds a record that has one copy another place.
func (a *Array) relocateRecord(b *batch, r *record) bool {
	if !a.relocate(b, r, &r.placement, nil) {
		return false
	}
	r.setPlaces()
	return true
}

// relocate finds a copy of a record another place, on a writable device that
// is not the one that has the other copy. Where no other device takes it, that is
// the same one if it takes writes still: only a segment of it had no room then.
func (a *Array) relocate(b *batch, r *record, p *placement, other *device) bool {
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	was := p.dev
	for _, d := range a.devs() {
		if d != nil && d != was && d != other && a.relocateTo(d, b, r, p) {
			return true
		}
	}
	return was != other && a.relocateTo(was, b, r, p)
}

// relocateTo finds a copy of a record a place on that device, if it takes it.
// append.mu is held.
func (a *Array) relocateTo(d *device, b *batch, r *record, p *placement) bool {
	if b.avoid>>d.slot&1 != 0 || !d.takesWrites() {
		return false
	}
	s := d.streamFor(r.class, r.sectors)
	if s == nil {
		return false
	}
	if s.open && d.segSectors()-s.next < r.sectors {
		a.seal(d, s)
	}
	if !s.open {
		a.openSegment(d, s, r.class)
	}
	*p = placement{dev: d, seg: s.seg, sector: s.next, generation: d.segs[s.seg].generation}
	r.flags |= format.FlagAgain
	s.next += r.sectors
	d.unsyncedSectors.Add(int64(r.sectors))
	g := &d.segs[s.seg]
	g.used, g.maxLSN = s.next, max(g.maxLSN, r.first+r.lsns-1)
	g.dirty.Store(true)
	return true
}

// setPlaces works out where the record's changes have their data.
func (r *record) setPlaces() {
	at := r.sectors - uint32(r.blocks*format.BlockSectors)
	for i := range r.changes {
		c := &r.changes[i]
		if n := c.dataBlocks(); n > 0 {
			c.place, c.second = format.MakePlace(r.dev.slot, r.seg, r.sector+at), 0
			if p := &r.second; p.dev != nil {
				c.second = format.MakePlace(p.dev.slot, p.seg, p.sector+at)
			}
			at += uint32(n * format.BlockSectors)
		}
	}
}

// void logs that the record's LSNs were never acknowledged, so that recovery
// does not take them for a gap. It returns cause, and breaks the array if not
// even that can be written.
func (a *Array) void(b *batch, r *record, cause error) error {
	v := *r
	v.second = placement{}
	v.flags, v.blocks, v.entryBytes, v.sectors = format.FlagVoid, 0, 0, 1
	avoid := b.avoid // is for blocks, and a void has none
	if !planted(ruleVoidAnywhere) {
		b.avoid = 0
	}
	defer func() { b.avoid = avoid }()
	for range a.devs() {
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
