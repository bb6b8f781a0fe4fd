package lsa

import "lsad/lsa/format"

// stretchBytes go to one device before it is another's turn, so that a flush
// has few devices to sync. Of small segments it is a few.
func (a *Array) stretchBytes() int64 { return min(4<<20, 4*int64(a.super.segmentSize)) }

// reserve gives the batch its LSNs and places. On return the batch is in the
// queue and must be written or voided: everything behind it waits.
func (a *Array) reserve(b *batch) error {
	l := &a.append
	l.mu.Lock()
	defer l.mu.Unlock()
	to, err := a.waitForRoom(b)
	if err != nil {
		return err
	}
	a.pack(b, to)
	if b.copies == 2 && to[1] == nil {
		a.noteAlone(b.last)
	}
	a.pending.Add(b.add)
	a.queue[l.tail%queueLength].Store(b)
	l.tail++
	return nil
}

// pack cuts the batch into records on the devices, which have the room. Where
// there are two, both get the same records: a record is as long as fits into
// what is left of either's segment. append.mu is held.
func (a *Array) pack(b *batch, to [2]*device) {
	lsn := a.append.nextLSN
	b.first = lsn
	for class := range uint8(MaxClasses) {
		if b.classes>>class&1 != 0 {
			lsn = a.packClass(b, to, class, lsn)
		}
	}
	b.last = lsn - 1
	a.append.nextLSN = lsn
	b.assignChanges()
}

// packClass cuts the changes of one class, which get their LSNs from lsn on; it
// returns the next.
func (a *Array) packClass(b *batch, to [2]*device, class uint8, lsn uint64) uint64 {
	var r *record
	for i := range b.changes {
		rest := b.changes[i]
		if rest.class != class {
			continue
		}
		for {
			n := 0
			if r != nil {
				n = r.fits(&rest)
			}
			if n == 0 && (r == nil || rest.dataBlocks() > 0 || !r.fitsRange(&rest)) {
				a.closeRecord(b, r)
				r = a.openRecord(b, to, class, lsn)
				continue
			}
			part := rest.cut(n)
			part.lsn = lsn
			lsn++
			r.entryBytes += part.entryBytes(int(part.count))
			part.place = format.Place(r.blocks) // completed by closeRecord
			r.blocks += part.dataBlocks()
			r.lsns++
			b.packed = append(b.packed, part)
			if rest.dataBlocks() == 0 || rest.count == 0 {
				break
			}
		}
	}
	a.closeRecord(b, r)
	return lsn
}

// cut takes the first n blocks off a change with data; others whole.
func (c *change) cut(n int) change {
	part := *c
	if c.dataBlocks() == 0 {
		return part
	}
	part.count, part.crcs, part.data = uint64(n), c.crcs[:n], c.data[:n*format.BlockSize]
	c.block += uint64(n)
	c.count -= uint64(n)
	c.crcs, c.data = c.crcs[n:], c.data[n*format.BlockSize:]
	return part
}

// fits returns how many blocks of c the record can take besides what it has.
func (r *record) fits(c *change) int {
	if c.dataBlocks() == 0 || r.lsns == maxRecordEntries {
		return 0
	}
	rest := r.rest()
	room := int(rest)/format.BlockSectors - r.blocks
	n := min(c.dataBlocks(), maxRecordBlocks-r.blocks, room)
	for n > 0 && r.length(c.entryBytes(n), n) > rest {
		n--
	}
	return n
}

func (r *record) fitsRange(c *change) bool {
	return r.lsns < maxRecordEntries && r.length(c.entryBytes(0), 0) <= r.rest() &&
		r.entryBytes+c.entryBytes(0) <= format.MaxHeader/2
}

// length in sectors with so much more.
func (r *record) length(entryBytes, blocks int) uint32 {
	return uint32(format.HeaderSectors(r.entryBytes+entryBytes) + (r.blocks+blocks)*format.BlockSectors)
}

// rest is how many sectors follow the record's beginning in its segment, the
// fewer of both where it has two copies.
func (r *record) rest() uint32 {
	n := r.dev.segSectors() - r.sector
	if r.second.dev != nil {
		n = min(n, r.second.dev.segSectors()-r.second.sector)
	}
	return n
}

// openRecord begins a record where the devices' streams end.
func (a *Array) openRecord(b *batch, to [2]*device, class uint8, lsn uint64) *record {
	r := record{placement: a.streamEnd(to[0], class), class: class, first: lsn}
	if to[1] != nil {
		r.second, r.flags = a.streamEnd(to[1], class), format.FlagTwo
	}
	b.records = append(b.records, r)
	return &b.records[len(b.records)-1]
}

// streamEnd is where the next record of a device's stream begins; it opens
// another segment if less than a block would fit.
func (a *Array) streamEnd(d *device, class uint8) placement {
	s := &d.streams[class]
	if s.open && d.segSectors()-s.next < 2*format.BlockSectors && len(d.prepared) > 0 {
		a.seal(d, s)
	}
	if !s.open {
		a.openSegment(d, s, class)
	}
	return placement{dev: d, seg: s.seg, sector: s.next, generation: d.segs[s.seg].generation}
}

// closeRecord takes the record's room from its streams. A record that nothing
// fitted into is dropped and the segment that had no room for it sealed.
func (a *Array) closeRecord(b *batch, r *record) {
	if r == nil {
		return
	}
	if r.lsns == 0 {
		b.records = b.records[:len(b.records)-1]
		for _, p := range [...]placement{r.placement, r.second} {
			if p.dev != nil && p.dev.segSectors()-p.sector == r.rest() {
				a.seal(p.dev, &p.dev.streams[r.class])
			}
		}
		return
	}
	header := uint32(format.HeaderSectors(r.entryBytes))
	r.sectors = r.length(0, 0)
	packed := b.packed[len(b.packed)-int(r.lsns):]
	a.takeRoom(r, &r.placement)
	if r.second.dev != nil {
		a.takeRoom(r, &r.second)
	}
	for i := range packed {
		if c := &packed[i]; c.dataBlocks() > 0 {
			block := uint32(c.place) * format.BlockSectors
			c.place = format.MakePlace(r.dev.slot, r.seg, r.sector+header+block)
			if p := &r.second; p.dev != nil {
				c.second = format.MakePlace(p.dev.slot, p.seg, p.sector+header+block)
			}
		}
	}
}

// takeRoom takes the room of one copy of a record. append.mu is held.
func (a *Array) takeRoom(r *record, p *placement) {
	s := &p.dev.streams[r.class]
	s.next += r.sectors
	p.dev.unsyncedSectors.Add(int64(r.sectors))
	seg := &p.dev.segs[s.seg]
	seg.used, seg.maxLSN = s.next, max(seg.maxLSN, r.first+r.lsns-1)
	seg.dirty.Store(true)
	bytes := int64(r.sectors) * format.SectorSize
	a.append.stretch -= bytes
	if a.logBytes.Add(bytes) > a.opts.CheckpointBytes {
		kick(a.work.checkpoint)
	}
	a.counters.overhead.Add(bytes - int64(r.blocks)*format.BlockSize)
}

// assignChanges gives each record its part of packed, which has stopped moving.
func (b *batch) assignChanges() {
	at := 0
	for i := range b.records {
		r := &b.records[i]
		r.changes = b.packed[at : at+int(r.lsns)]
		at += int(r.lsns)
	}
}

func (a *Array) seal(d *device, s *stream) {
	d.setState(s.seg, segSealed)
	s.open = false
}

// openSegment takes a prepared segment. waitForRoom saw to it that there is one.
func (a *Array) openSegment(d *device, s *stream, class uint8) {
	seg := d.prepared[0]
	d.prepared = append(d.prepared[:0], d.prepared[1:]...)
	g := &d.segs[seg]
	if !planted(ruleNewGeneration) || g.generation == 0 {
		g.generation++
	}
	g.used, g.firstLSN, g.maxLSN = 0, a.append.nextLSN, 0
	g.class.Store(uint32(class))
	d.setState(seg, segOpen)
	*s = stream{open: true, seg: seg}
	kick(a.work.prepare)
	if a.readyLow(d) {
		kick(a.work.checkpoint)
	}
	if a.opts.Events != nil {
		a.opts.Events.SegmentUsed(int(d.slot), d.unused())
	}
	a.updatePressure()
}
