package lsa

import (
	"fmt"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// isStale says whether the array was used without the device, or with a later
// state of it, since that superblock was written.
func isStale(s, newest *format.Superblock, row format.DeviceRow) bool {
	switch {
	case planted(ruleRefuseStale):
		return false
	case row.State == format.DeviceInService:
		return s.Epoch < newest.Epoch && newest.Served || s.Sequence+1 < newest.Sequence && newest.Clean
	}
	return row.State == format.DeviceGone || row.State == format.DeviceLost
}

// adopt finds out which device is which. The newest superblock decides.
func (a *Array) adopt() (string, error) {
	supers := make([]*format.Superblock, len(a.opts.Devices))
	var newest *format.Superblock
	for i, d := range a.opts.Devices {
		s, err := readSuperblock(d)
		if err != nil {
			return "", err
		}
		if newest != nil && s.Array != newest.Array {
			return "", fmt.Errorf("device %s: %w: it belongs to array %v, the others to %v", d.Name(), ErrForeignDevice, s.Array, newest.Array)
		}
		supers[i] = s
		if newest == nil || newer(s, newest) {
			newest = s
		}
	}
	if newest == nil {
		return "", fmt.Errorf("%w: none was given", ErrMissingDevice)
	}
	a.super.load(newest)
	all := make([]*device, len(newest.Devices))
	a.slots.Store(&all)
	for i, d := range a.opts.Devices {
		if err := a.adoptDevice(d, supers[i], newest); err != nil {
			return "", err
		}
	}
	return a.checkMissing()
}

func (a *Array) adoptDevice(dev blockdev.Device, s, newest *format.Superblock) error {
	for slot, row := range newest.Devices {
		if row.ID != s.Device {
			continue
		}
		d := &device{dev: dev, slot: uint8(slot), row: row, segBytes: int64(newest.SegmentSize)}
		if a.devs()[slot] != nil {
			return fmt.Errorf("device %s: %w: %s has the same identity; one is a copy of the other", dev.Name(), ErrForeignDevice, a.devs()[slot].dev.Name())
		}
		if isStale(s, newest, row) {
			if row.State != format.DeviceInService {
				return fmt.Errorf("device %s: %w: the array was told to go on without it", dev.Name(), ErrGivenUp)
			}
			return fmt.Errorf("device %s: %w: the array was used without it, or with a later state of it, since (its epoch is %d, the array's %d; its superblock number %d, the array's %d)",
				dev.Name(), ErrStaleDevice, s.Epoch, newest.Epoch, s.Sequence, newest.Sequence)
		}
		if n := segmentsOf(dev, d.segBytes); n < int64(row.Segments) {
			return fmt.Errorf("device %s: %w: it was cut short: %d bytes, room for %d of its %d segments; made as long as it was (truncate -s %d) it lacks what was cut off and no more",
				dev.Name(), ErrDamaged, dev.Size(), max(n, 0), row.Segments, format.SegmentsOffset+int64(row.Segments)*d.segBytes)
		}
		d.segs = make([]segment, row.Segments)
		d.writable.Store(row.State == format.DeviceInService)
		a.devs()[slot] = d
		return nil
	}
	return fmt.Errorf("device %s: %w: device %v is not in the array's table", dev.Name(), ErrForeignDevice, s.Device)
}

func (a *Array) checkMissing() (string, error) {
	present := 0
	for slot, row := range a.super.rows {
		if a.devs()[slot] != nil {
			present++
			continue
		}
		if row.State == format.DeviceGone {
			continue
		}
		a.degraded = true
		if row.State == format.DeviceLost {
			continue // going on without it was begun
		}
		if !a.opts.Degraded {
			return "", fmt.Errorf("%w: the one of slot %d, identity %v; give it, or open degraded", ErrMissingDevice, slot, row.ID)
		}
		if a.missing++; !a.goesOn {
			a.readOnly = true
		}
	}
	return fmt.Sprintf("%d of %d devices, epoch %d", present, len(a.super.rows), a.super.epoch), nil
}
