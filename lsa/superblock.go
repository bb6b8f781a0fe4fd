package lsa

import (
	"errors"
	"fmt"
	"sync"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// superState is what the superblocks say, the same on every device but for the
// slot.
type superState struct {
	mu          sync.Mutex
	array       format.UUID
	secret      uint64
	segmentSize uint32
	sequence    uint64
	epoch       uint64
	cut         uint64
	served      bool
	clean       bool
	boot        format.UUID
	incarnation uint64
	checkpoint  uint64
	incompat    uint64
	rows        []format.DeviceRow
}

// readSuperblock returns the newer of a device's two copies. The error wraps
// ErrNotArray where there never was one, ErrDamaged where neither can be used.
func readSuperblock(d blockdev.Device) (*format.Superblock, error) {
	var best *format.Superblock
	var errs []error
	for _, off := range []int64{format.SuperblockOffsetA, format.SuperblockOffsetB} {
		buf := make([]byte, format.SuperblockSize)
		if d.Size() < format.SegmentsOffset {
			return nil, fmt.Errorf("device %s: %w: %d bytes are too few for one", d.Name(), ErrNotArray, d.Size())
		}
		if err := d.ReadAt(buf, off); err != nil {
			errs = append(errs, err)
			continue
		}
		s, err := format.DecodeSuperblock(buf)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if best == nil || s.Sequence > best.Sequence {
			best = s
		}
	}
	if best != nil {
		return best, nil
	}
	for _, err := range errs {
		if errors.Is(err, format.ErrNewer) {
			return nil, fmt.Errorf("device %s: %w", d.Name(), err)
		}
	}
	for _, err := range errs {
		if !errors.Is(err, format.ErrNoSuperblock) {
			return nil, fmt.Errorf("device %s: %w: first copy: %w; second copy: %w", d.Name(), ErrDamaged, errs[0], errs[1])
		}
	}
	return nil, fmt.Errorf("device %s: %w: %w", d.Name(), ErrNotArray, errs[0])
}

// writeSuperblock writes and syncs one copy after the other: the one that is
// older, or torn by a crash, first, by way of sync. The other may be the only whole one.
func writeSuperblock(d blockdev.Device, s *format.Superblock, sync func() error) error {
	buf := format.EncodeSuperblock(s)
	order := []int64{format.SuperblockOffsetA, format.SuperblockOffsetB}
	if superblockSequence(d, order[0]) > superblockSequence(d, order[1]) {
		order[0], order[1] = order[1], order[0]
	}
	for _, off := range order {
		if err := d.WriteVec([][]byte{buf}, off); err != nil {
			return fmt.Errorf("write superblock of device %s: %w", d.Name(), err)
		}
		if err := sync(); err != nil {
			return fmt.Errorf("sync superblock of device %s: %w", d.Name(), err)
		}
	}
	return nil
}

// superblockSequence returns that of a copy, 0 if it is not whole.
func superblockSequence(d blockdev.Device, off int64) uint64 {
	buf := make([]byte, format.SuperblockSize)
	if err := d.ReadAt(buf, off); err != nil {
		return 0
	}
	s, err := format.DecodeSuperblock(buf)
	if err != nil {
		return 0
	}
	return s.Sequence
}

// writeState writes, on the other devices, that d is in a new state, or that it
// is gone if it was removed meanwhile.
func (a *Array) writeState(d *device, state format.DeviceState) error {
	s := &a.super
	s.mu.Lock()
	if s.rows[d.slot].State != format.DeviceGone {
		s.rows[d.slot].State = state
	}
	s.mu.Unlock()
	if !planted(ruleRememberFailure) {
		if err := a.writeSuperblocks(); err != nil {
			return err
		}
	}
	d.remembered(state)
	return nil
}

// remembered: other devices know durably that d is in that state. A flush that
// finds it so need not see to it.
func (d *device) remembered(state format.DeviceState) {
	d.mu.Lock()
	d.row.State = state
	d.mu.Unlock()
}

// writeSuperblocks writes the present state to every device that takes writes.
// It fails if no device, or one that should, did not take it; that one is out
// of service from then on, since a sync that failed may have dropped records too.
func (a *Array) writeSuperblocks() error {
	s := &a.super
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sequence++
	written := 0
	var errs []error
	for _, d := range a.devs() {
		if d == nil || !d.writable.Load() {
			continue
		}
		if err := writeSuperblock(d.dev, s.superblock(d.slot), d.syncOnce); err != nil {
			errs = append(errs, err)
			a.takeOutOfService(d, err)
			continue
		}
		written++
	}
	if written == 0 {
		errs = append(errs, fmt.Errorf("%w: no device takes writes", ErrFailed))
	}
	return errors.Join(errs...)
}

func (s *superState) superblock(slot uint8) *format.Superblock {
	return &format.Superblock{
		Array: s.array, Secret: s.secret, Device: s.rows[slot].ID, Slot: uint16(slot), SegmentSize: s.segmentSize,
		Sequence: s.sequence, Epoch: s.epoch, CutLSN: s.cut, Served: s.served, Clean: s.clean,
		Boot: s.boot, Incarnation: s.incarnation, Checkpoint: s.checkpoint, Devices: s.rows,
		Incompat: s.incompat,
	}
}

// load takes over the newest superblock.
func (s *superState) load(b *format.Superblock) {
	s.array, s.secret, s.segmentSize, s.sequence = b.Array, b.Secret, b.SegmentSize, b.Sequence
	s.epoch, s.cut, s.served, s.clean = b.Epoch, b.CutLSN, b.Served, b.Clean
	s.boot, s.incarnation, s.checkpoint, s.rows = b.Boot, b.Incarnation, b.Checkpoint, append([]format.DeviceRow(nil), b.Devices...)
	s.incompat = b.Incompat
}

// wipeSuperblocks makes a device that was removed a blank one.
func wipeSuperblocks(d blockdev.Device) error {
	zero := make([]byte, format.SuperblockSize)
	for _, off := range []int64{format.SuperblockOffsetA, format.SuperblockOffsetB} {
		if err := d.WriteVec([][]byte{zero}, off); err != nil {
			return err
		}
	}
	return d.Sync()
}
