package lsa

import (
	"errors"
	"fmt"
	"time"

	"lsad/lsa/format"
)

// takeOutOfService: nothing is written to the device any more. The other
// devices remember it, and what no sync of it covers is saved to them.
func (a *Array) takeOutOfService(d *device, cause error) {
	if !d.writable.CompareAndSwap(true, false) {
		return
	}
	a.log.Error("device taken out of service for writing", "device", d.dev.Name(), "slot", d.slot, "error", cause)
	a.append.mu.Lock()
	for c := range d.streams {
		if s := &d.streams[c]; s.open {
			a.seal(d, s)
		}
	}
	if a.append.current == d {
		a.append.current = nil
	}
	a.updateLimit()
	a.append.mu.Unlock()
	kick(a.work.tidy)
	kick(a.work.rebuild)
}

// rescueAll rescues what needs it.
func (a *Array) rescueAll() {
	for _, d := range a.devs() {
		if d == nil || d.writable.Load() {
			continue
		}
		d.mu.Lock()
		todo := len(d.unsynced) > 0 || d.row.State == format.DeviceInService
		d.mu.Unlock()
		if todo {
			a.rescue(d)
		}
	}
}

// rescue records the device's state elsewhere, then appends every record that
// no sync of it covered to another device, with the LSNs it had, once it was
// read back and found intact.
func (a *Array) rescue(d *device) {
	if err := a.writeState(d, format.DeviceReadOnly); err != nil {
		a.log.Error("could not record that a device is out of service", "device", d.dev.Name(), "error", err)
		return
	}
	saved, lost := 0, 0
	for {
		ref, ok := d.nextUnsynced()
		if !ok {
			break
		}
		err := a.rescueOne(d, ref)
		if errors.Is(err, errNoRescueRoom) {
			a.log.Error("no device takes the records that were not synced; it will be tried again, and flushes fail until then", "device", d.dev.Name())
			return
		}
		if err != nil && a.failed() != nil {
			return
		}
		if err != nil {
			if lost++; lost == 1 {
				a.log.Error("a record that was not synced is lost", "device", d.dev.Name(), "segment", ref.seg, "sector", ref.sector, "error", err)
			}
			a.lose(d, ref)
			continue
		}
		saved++
	}
	a.log.Info("unsynced records saved elsewhere", "device", d.dev.Name(), "records", saved)
	if lost > 0 {
		a.log.Error("records that were not synced are lost; flushes of volumes with one copy fail until the next start", "device", d.dev.Name(), "records", lost)
	}
	kick(a.work.checkpoint)
}

// errNoRescueRoom: no device has room for a record now.
var errNoRescueRoom = fmt.Errorf("%w: no other device takes it", ErrFailed)

// rescueOne rescues one record. No checkpoint gets between: it could refer to the
// old place and find the record saved when it asks whether all is durable, or
// take the segment that the record goes to, which is new but whose LSNs are not,
// for an empty one.
func (a *Array) rescueOne(d *device, ref recordRef) error {
	a.checkpoint.mu.Lock()
	defer a.checkpoint.mu.Unlock()
	// A copy on a device in service is as good: that one's syncs cover it.
	if ref.other == nil || !ref.other.writable.Load() {
		if err := a.rescueRecord(d, ref); err != nil {
			return err
		}
		a.flush.rescued.Add(1)
	}
	d.saved(ref)
	return nil
}

// saved forgets the first of the records that no sync covers.
func (d *device) saved(ref recordRef) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// A sync that was under way may have forgotten it meanwhile.
	if len(d.unsynced) > 0 && d.unsynced[0].seq == ref.seq {
		d.unsynced = d.unsynced[1:]
	}
	d.synced.Store(max(d.synced.Load(), ref.seq))
}

// forgetCopied saves what is saved without an append: the records of a failed
// device of which each has another copy on a device in service, whose syncs cover
// it. It says whether no records of failed devices are left to be saved, by this
// or by a rescue just before; then another round of syncing may succeed.
func (a *Array) forgetCopied() bool {
	for _, d := range a.devs() {
		if d != nil && !d.writable.Load() && !d.forgetCopied() {
			return false
		}
	}
	return true
}

func (d *device) forgetCopied() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ref := range d.unsynced {
		if ref.other == nil || !ref.other.writable.Load() {
			return false
		}
	}
	if n := len(d.unsynced); n > 0 {
		d.synced.Store(max(d.synced.Load(), d.unsynced[n-1].seq))
		d.unsynced = nil
	}
	return true
}

func (d *device) nextUnsynced() (recordRef, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.unsynced) == 0 {
		return recordRef{}, false
	}
	return d.unsynced[0], true
}

// rescueRecord appends one record again, elsewhere, and has the map follow.
func (a *Array) rescueRecord(d *device, ref recordRef) error {
	if planted(ruleRescueUnsynced) {
		return nil
	}
	buf := make([]byte, int(ref.sectors)*format.SectorSize)
	if err := d.dev.ReadAt(buf, d.offset(ref.seg, ref.sector)); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	h, ok := format.PeekRecordHeader(buf)
	if !ok || h.TotalSectors() != ref.sectors || !format.CheckRecordHeader(buf[:int(h.Sectors)*format.SectorSize], &h, a.super.secret) {
		return fmt.Errorf("%w: its header did not reach the device", ErrDamaged)
	}
	b := newBatch(originMoved)
	defer b.release()
	r := record{placement: placement{dev: d, seg: ref.seg, sector: ref.sector}, sectors: ref.sectors, first: h.FirstLSN, lsns: uint64(h.LSNs), blocks: int(h.Blocks), class: originMoved, flags: h.Flags & (format.FlagTwo | format.FlagVoid)}
	old, err := a.decodeRecord(b, buf, &h)
	if err != nil {
		return err
	}
	r.changes = b.packed
	for tries := 0; ; tries++ {
		if tries > len(a.devs()) {
			return errNoRescueRoom
		}
		if !a.relocateRecord(b, &r) {
			if err := a.readyForRescue(); err != nil {
				return err
			}
			if !a.relocateRecord(b, &r) {
				return errNoRescueRoom
			}
		}
		if err := a.writeRecord(b, &r); err == nil {
			break
		} else {
			a.appendFailed(r.dev, r.seg, err)
		}
	}
	for a.committed.Load() < h.LastLSN() && a.failed() == nil {
		time.Sleep(time.Millisecond)
	}
	return a.followRescued(b.packed, old)
}

// readyForRescue has a segment prepared on each device that takes writes. A
// checkpoint cannot do it: none succeeds before the records are saved. The store
// learns that the segments may be opened, and nothing else, so that recovery
// looks there. checkpoint.mu is held.
func (a *Array) readyForRescue() error {
	batch := a.db.NewBatch()
	defer batch.Close()
	var rows []segmentRow
	a.append.mu.Lock()
	for _, d := range a.devs() {
		if d == nil || !d.takesWrites() || len(d.ready)+len(d.prepared) > 0 {
			continue
		}
		for i := range d.segs {
			if s := &d.segs[i]; s.state == segFree {
				row := s.row(d.slot, uint32(i))
				row.state = segReady
				rows = append(rows, row)
				break
			}
		}
	}
	a.append.mu.Unlock()
	for i := range rows {
		if err := batch.Set(segmentKey(rows[i].slot, rows[i].seg), rows[i].encode(), nil); err != nil {
			return fmt.Errorf("make room for a rescue: %w", err)
		}
	}
	if len(rows) > 0 {
		if err := a.applyToStore(batch); err != nil {
			return fmt.Errorf("make room for a rescue: %w", err)
		}
	}
	a.append.mu.Lock()
	for _, r := range rows {
		d := a.devs()[r.slot]
		d.segs[r.seg].state = segReady
		d.free--
		d.ready = append(d.ready, r.seg)
	}
	a.append.mu.Unlock()
	a.prepareSegments()
	return nil
}

// decodeRecord makes the changes of an intact record from its bytes, and
// returns the places they had.
func (a *Array) decodeRecord(b *batch, buf []byte, h *format.RecordHeader) ([]format.Place, error) {
	header := buf[:int(h.Sectors)*format.SectorSize]
	data := buf[len(header):]
	var old []format.Place
	block := 0
	err := format.DecodeEntries(header, h, func(e *format.Entry) error {
		c := change{kind: e.Kind, layer: e.Layer, block: e.Block, count: e.Count, oldLSN: e.OldLSN, from: e.From, admin: e.Payload, lsn: h.FirstLSN + uint64(len(b.packed))}
		n := e.DataBlocks()
		c.data = data[block*format.BlockSize:][:n*format.BlockSize]
		for i := range n {
			crc := e.CRC(i)
			if format.Checksum(c.data[i*format.BlockSize:][:format.BlockSize]) != crc {
				return fmt.Errorf("%w: block %d of layer %d did not reach the device", ErrDamaged, e.Block+uint64(i), e.Layer)
			}
			c.crcs = append(c.crcs, crc)
		}
		old = append(old, format.MakePlace(uint8(h.Device), h.Segment, h.Sector+uint32(h.Sectors)+uint32(block*format.BlockSectors)))
		b.packed = append(b.packed, c)
		block += n
		return nil
	})
	return old, err
}

// followRescued points the map to the new places of blocks it still has at
// the old ones.
func (a *Array) followRescued(changes []change, old []format.Place) error {
	for i := range changes {
		c := &changes[i]
		lsn := c.lsn
		if c.kind == format.EntryMove {
			lsn = c.oldLSN
		}
		for j := range c.dataBlocks() {
			moved := change{kind: format.EntryMove, layer: c.layer, block: c.block + uint64(j), oldLSN: lsn, from: old[i].After(j), place: c.place.After(j)}
			pin := a.pinMerged(moved.layer, moved.block)
			a.commit.mu.Lock()
			a.applyMove(&moved)
			a.commit.mu.Unlock()
			a.unpinAll(pin)
		}
	}
	return nil
}
