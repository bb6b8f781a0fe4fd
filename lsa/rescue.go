package lsa

import (
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
	a.limit.Store(a.capacity())
	a.append.mu.Unlock()
	kick(a.work.tidy)
}

// rescueAll rescues what needs it.
func (a *Array) rescueAll() {
	for _, d := range a.devs {
		if d == nil || d.writable.Load() {
			continue
		}
		d.mu.Lock()
		todo := !d.lost && (len(d.unsynced) > 0 || d.row.State == format.DeviceInService)
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
	saved := 0
	for {
		ref, ok := d.nextUnsynced()
		if !ok {
			break
		}
		if err := a.rescueRecord(d, ref); err != nil {
			a.log.Error("a record that was not synced is lost; flushes go on failing", "device", d.dev.Name(), "segment", ref.seg, "sector", ref.sector, "error", err)
			d.mu.Lock()
			d.lost = true
			d.mu.Unlock()
			return
		}
		saved++
		d.mu.Lock()
		d.unsynced = d.unsynced[1:]
		d.synced.Store(ref.seq)
		d.mu.Unlock()
	}
	a.log.Info("unsynced records saved elsewhere", "device", d.dev.Name(), "records", saved)
	kick(a.work.checkpoint)
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
	buf := make([]byte, int(ref.sectors)*format.SectorSize)
	if err := d.dev.ReadAt(buf, d.offset(ref.seg, ref.sector)); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	h, ok := format.PeekRecordHeader(buf)
	if !ok || h.TotalSectors() != ref.sectors || !format.CheckRecordHeader(buf[:int(h.Sectors)*format.SectorSize], &h, a.super.secret) {
		return fmt.Errorf("%w: its header did not reach the device", ErrDamaged)
	}
	b := newBatch(classMoved)
	defer b.release()
	r := record{dev: d, seg: ref.seg, sector: ref.sector, sectors: ref.sectors, first: h.FirstLSN, lsns: uint64(h.LSNs), blocks: int(h.Blocks)}
	if h.Flags&format.FlagVoid != 0 {
		return a.void(b, &r, nil)
	}
	old, err := a.decodeRecord(b, buf, &h)
	if err != nil {
		return err
	}
	r.changes = b.packed
	for {
		if !a.relocateRecord(b, &r) {
			return fmt.Errorf("%w: no other device takes it", ErrFailed)
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
