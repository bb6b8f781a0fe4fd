package lsa

import "lsad/lsa/format"

// stretchBytes go to one device before it is another's turn, so that a flush
// has few devices to sync.
const stretchBytes = 4 << 20

// reserve gives the batch its LSNs and places. On return the batch is in the
// queue and must be written or voided: everything behind it waits.
func (a *Array) reserve(b *batch) error {
	l := &a.append
	l.mu.Lock()
	defer l.mu.Unlock()
	d, err := a.waitForRoom(b)
	if err != nil {
		return err
	}
	a.pack(b, d)
	a.pending.Add(b.add)
	a.queue[l.tail%queueLength].Store(b)
	l.tail++
	return nil
}

// pack cuts the batch into records on device d, which has the room. append.mu
// is held.
func (a *Array) pack(b *batch, d *device) {
	lsn := a.append.nextLSN
	b.first = lsn
	var r *record
	for i := range b.changes {
		rest := b.changes[i]
		for {
			n := 0
			if r != nil {
				n = r.fits(&rest, d)
			}
			if n == 0 && (r == nil || rest.dataBlocks() > 0 || !r.fitsRange(&rest, d)) {
				a.closeRecord(b, r)
				r = a.openRecord(b, d, lsn)
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
	b.last = lsn - 1
	a.append.nextLSN = lsn
	b.assignChanges()
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
func (r *record) fits(c *change, d *device) int {
	if c.dataBlocks() == 0 || r.lsns == maxRecordEntries {
		return 0
	}
	room := int(d.segSectors()-r.sector)/format.BlockSectors - r.blocks
	n := min(c.dataBlocks(), maxRecordBlocks-r.blocks, room)
	for n > 0 && r.length(c.entryBytes(n), n) > d.segSectors()-r.sector {
		n--
	}
	return n
}

func (r *record) fitsRange(c *change, d *device) bool {
	return r.lsns < maxRecordEntries && r.length(c.entryBytes(0), 0) <= d.segSectors()-r.sector &&
		r.entryBytes+c.entryBytes(0) <= format.MaxHeader/2
}

// length in sectors with so much more.
func (r *record) length(entryBytes, blocks int) uint32 {
	return uint32(format.HeaderSectors(r.entryBytes+entryBytes) + (r.blocks+blocks)*format.BlockSectors)
}

// openRecord begins a record where the device's stream ends; it opens another
// segment if less than a block would fit.
func (a *Array) openRecord(b *batch, d *device, lsn uint64) *record {
	s := &d.streams[b.class]
	if s.open && d.segSectors()-s.next < 2*format.BlockSectors && len(d.prepared) > 0 {
		a.seal(d, s)
	}
	if !s.open {
		a.openSegment(d, s, b.class)
	}
	b.records = append(b.records, record{
		dev: d, seg: s.seg, sector: s.next, first: lsn, generation: d.segs[s.seg].generation,
	})
	return &b.records[len(b.records)-1]
}

// closeRecord takes the record's room from its stream. A record that nothing
// fitted into is dropped and its segment sealed.
func (a *Array) closeRecord(b *batch, r *record) {
	if r == nil {
		return
	}
	s := &r.dev.streams[b.class]
	if r.lsns == 0 {
		b.records = b.records[:len(b.records)-1]
		a.seal(r.dev, s)
		return
	}
	header := format.HeaderSectors(r.entryBytes)
	r.sectors = r.length(0, 0)
	s.next += r.sectors
	seg := &r.dev.segs[s.seg]
	seg.used, seg.maxLSN = s.next, r.first+r.lsns-1
	seg.dirty.Store(true)
	a.append.stretch -= int64(r.sectors) * format.SectorSize
	if a.logBytes.Add(int64(r.sectors)*format.SectorSize) > a.opts.CheckpointBytes {
		kick(a.work.checkpoint)
	}
	a.counters.overhead.Add(int64(header) * format.SectorSize)
	packed := b.packed[len(b.packed)-int(r.lsns):]
	for i := range packed {
		if packed[i].dataBlocks() > 0 {
			packed[i].place = format.MakePlace(r.dev.slot, r.seg,
				r.sector+uint32(header)+uint32(packed[i].place)*format.BlockSectors)
		}
	}
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
func (a *Array) openSegment(d *device, s *stream, class int) {
	seg := d.prepared[0]
	d.prepared = append(d.prepared[:0], d.prepared[1:]...)
	g := &d.segs[seg]
	if !planted(ruleNewGeneration) || g.generation == 0 {
		g.generation++
	}
	g.class, g.used, g.firstLSN, g.maxLSN = uint8(class), 0, a.append.nextLSN, 0
	d.setState(seg, segOpen)
	*s = stream{open: true, seg: seg}
	kick(a.work.prepare)
	if len(d.ready)+len(d.prepared) < a.window(d)/2 && d.free > 0 {
		kick(a.work.checkpoint)
	}
	if a.opts.Events != nil {
		a.opts.Events.SegmentUsed(int(d.slot), d.unused())
	}
	a.updatePressure()
}
