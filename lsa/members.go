package lsa

import (
	"context"
	"fmt"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// devs are the devices by slot; nil where one is absent. The slice is never
// changed once others see it, only replaced.
func (a *Array) devs() []*device { return *a.slots.Load() }

// setDevice puts a device, or nil, into a slot, at most one behind the last.
// membership is held.
func (a *Array) setDevice(slot int, d *device) {
	all := make([]*device, max(len(a.devs()), slot+1))
	copy(all, a.devs())
	all[slot] = d
	a.slots.Store(&all)
}

// AddDevice makes an empty device part of the array, which takes writes from
// then on. What it held is gone. remember, if not nil, is called when the
// device knows that it belongs to the array and the others do not yet: after a
// crash it may be given to Open from then on, and has to be once AddDevice has
// returned. The array does not close it. AddDevice returns its slot.
func (a *Array) AddDevice(ctx context.Context, dev blockdev.Device, remember func() error) (int, error) {
	a.membership.Lock()
	defer a.membership.Unlock()
	slot := len(a.devs())
	if err := a.admissible(dev, slot); err != nil {
		return 0, fmt.Errorf("add device %s: %w", dev.Name(), err)
	}
	segBytes := int64(a.super.segmentSize)
	row := format.DeviceRow{ID: newUUID(), Segments: uint32(segmentsOf(dev, segBytes))}
	d := &device{dev: dev, slot: uint8(slot), row: row, segBytes: segBytes, segs: make([]segment, row.Segments), free: int(row.Segments)}
	for i := range d.segs {
		d.segs[i].stale = true
	}
	d.writable.Store(true)
	if err := a.introduce(d, remember); err != nil {
		return 0, fmt.Errorf("add device %s: %w", dev.Name(), err)
	}
	if err := a.join(d); err != nil {
		return slot, fmt.Errorf("add device %s: the others could not take note of it: %w", dev.Name(), err)
	}
	a.log.Info("device added", "device", dev.Name(), "slot", slot, "segments", row.Segments)
	kick(a.work.checkpoint)
	kick(a.work.tidy)
	kick(a.work.rebuild)
	return slot, a.Checkpoint(ctx) // with it, the first segments can be opened
}

// join has the array use the device. No checkpoint may name it before the others
// know of it: without it, should it be lost just then, nobody would know what is meant.
func (a *Array) join(d *device) error {
	a.checkpoint.mu.Lock()
	defer a.checkpoint.mu.Unlock()
	a.append.mu.Lock()
	d.turn = a.append.clock
	a.setDevice(int(d.slot), d)
	a.updateLimit()
	a.updatePressure()
	a.append.mu.Unlock()
	return a.insistOnSuperblocks()
}

func (a *Array) admissible(dev blockdev.Device, slot int) error {
	if a.readOnly {
		return fmt.Errorf("array opened degraded: %w", ErrReadOnly)
	}
	if slot >= format.MaxDevices {
		return fmt.Errorf("%w: the array has had %d devices, there is no slot left", ErrInvalid, slot)
	}
	if n := segmentsOf(dev, int64(a.super.segmentSize)); n < minSegments {
		return fmt.Errorf("%w: it has %d bytes, room for %d segments of %d; it takes %d", ErrInvalid, dev.Size(), max(n, 0), a.super.segmentSize, minSegments)
	}
	s, err := readSuperblock(dev)
	if err == nil && s.Array == a.super.array && !a.knows(s.Device) {
		return nil // adding it was cut short before
	}
	return blank(dev)
}

// knows says whether the identity is that of a device of the array, present or not.
func (a *Array) knows(id format.UUID) bool {
	a.super.mu.Lock()
	defer a.super.mu.Unlock()
	for _, row := range a.super.rows {
		if row.ID == id {
			return true
		}
	}
	return false
}

// introduce writes the table with the new device in it to that device. It is
// the newest table then: whoever opens the array with the device finds it a
// member, and whoever opens it without it finds that it never was.
func (a *Array) introduce(d *device, remember func() error) error {
	s := &a.super
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = append(s.rows, d.row)
	s.sequence++
	var err error
	if !planted(ruleIntroduceFirst) {
		err = writeSuperblock(d.dev, s.superblock(d.slot), d.syncOnce)
	}
	if err == nil && remember != nil {
		err = remember()
	}
	if err != nil {
		s.rows = s.rows[:d.slot]
	}
	return err
}
