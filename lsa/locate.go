package lsa

import (
	"fmt"

	"lsad/internal/direct"
	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// Locate says where the blocks from off on lie, for who reads them from the
// devices: a row for each of rows, all good for base. Without Options.Uses, or
// where a block lies on no device that is there, nothing is told. off and the
// end must be multiples of the block size.
func (h *Handle) Locate(off int64, rows []direct.Row) (base uint64, err error) {
	if err := h.check("locate", off, int64(len(rows))*format.BlockSize, false); err != nil {
		return 0, err
	}
	if off%format.BlockSize != 0 {
		return 0, fmt.Errorf("locate in volume %q: %w: %d is not the offset of a block", h.name, ErrInvalid, off)
	}
	clear(rows)
	if h.a.opts.Uses == nil {
		return 0, nil
	}
	s := readScratches.Get().(*readScratch)
	defer readScratches.Put(s)
	// As long as this counts as a read, no segment that the map refers to is emptied, and Uses tells of none.
	turn := h.a.readers.enter()
	defer h.a.readers.exit(turn)
	base, ok := h.a.opts.Uses.Base()
	if !ok {
		return 0, nil
	}
	layer, block := h.head(), uint64(off)/format.BlockSize
	for len(rows) > 0 {
		entries := s.entries[:min(readRun, len(rows))]
		if err := h.a.blocks.Lookup(layer, block, entries); err != nil {
			return 0, fmt.Errorf("locate in volume %q: %w", h.name, err)
		}
		for i := range entries {
			rows[i] = h.a.rowOf(&entries[i])
		}
		rows, block = rows[len(entries):], block+uint64(len(entries))
	}
	return base, nil
}

// DeviceNames returns the devices' names by slot, "" for those that are not
// there.
func (a *Array) DeviceNames() []string {
	devs := a.devs()
	names := make([]string, len(devs))
	for i, d := range devs {
		if d != nil {
			names[i] = d.dev.Name()
		}
	}
	return names
}

func (a *Array) rowOf(e *blockmap.Entry) direct.Row {
	if e.Kind != blockmap.KindData {
		return direct.Zeros()
	}
	place := e.Place[a.nearest(e)]
	d := a.devOf(place)
	if d == nil || !d.holds(place, 1) {
		return direct.Row{}
	}
	return a.opts.Uses.Row(d.slot, place.Segment(), d.offset(place.Segment(), place.Sector()), e.CRC)
}

// tellEmptied has those who read from the devices know that a segment's blocks
// are gone. False says that they cannot be told: it must stay as it is.
func (a *Array) tellEmptied(d *device, seg uint32) bool {
	if a.opts.Uses == nil {
		return true
	}
	if err := a.opts.Uses.Emptied(d.slot, seg); err != nil {
		a.log.Error("a segment is not used again until the next start, since somebody may read it", "device", d.dev.Name(), "segment", seg, "error", err)
		return false
	}
	return true
}

// tellRemoved has them know that a device is no longer the array's.
func (a *Array) tellRemoved() {
	if a.opts.Uses == nil {
		return
	}
	if err := a.opts.Uses.Renew(); err != nil {
		a.log.Error("who reads from the device that was removed could not be told", "error", err)
	}
}
