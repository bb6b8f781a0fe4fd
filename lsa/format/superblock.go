package format

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Superblocks lie at these offsets of a device, in bytes; segments begin at
// SegmentsOffset. An update writes and syncs one copy after the other, so that
// one of them is always whole.
const (
	SuperblockSize    = 4096
	SuperblockOffsetA = 0
	SuperblockOffsetB = 512 << 10
	SegmentsOffset    = 1 << 20
)

const (
	superMagic     = "lsad\x00arr"
	deviceRowSize  = 32
	superFixed     = 256
	superCRCOffset = SuperblockSize - 4
)

// Segment sizes, in bytes: a power of two in this range.
const (
	MinSegmentSize     = 64 << 10
	MaxSegmentSize     = 1 << 30
	DefaultSegmentSize = 32 << 20
)

// UUID names arrays and devices.
type UUID [16]byte

func (u UUID) String() string { return hex.EncodeToString(u[:]) }

// FeatureDeltas: the metadata store may hold deltas of map pages.
const FeatureDeltas uint64 = 1 << 0

// FeatureViews: the metadata store may hold kept views of map pages, and the segment table says what they rest on.
const FeatureViews uint64 = 1 << 1

// Features that a superblock can name. An unknown bit of Incompat forbids opening.
const (
	FeaturesCompat   uint64 = 0
	FeaturesIncompat        = FeatureDeltas | FeatureViews
)

// DeviceState is what the array thinks of a device.
type DeviceState uint8

// Device states. Values are on disk.
const (
	DeviceInService DeviceState = 0
	// DeviceReadOnly: a sync or write failed; it is read, never written.
	DeviceReadOnly DeviceState = 1
	// DeviceGone: removed, or absent when others went on without it.
	DeviceGone DeviceState = 2
	// DeviceLost: about to be gone. The others may still have a log of which
	// parts were on it.
	DeviceLost DeviceState = 3
)

func (s DeviceState) String() string {
	switch s {
	case DeviceInService:
		return "in service"
	case DeviceReadOnly:
		return "read-only"
	case DeviceGone:
		return "gone"
	case DeviceLost:
		return "lost"
	}
	return "unknown"
}

// DeviceRow is one device in the table that every superblock carries.
type DeviceRow struct {
	ID       UUID
	Segments uint32
	State    DeviceState
}

// Superblock identifies a device and holds what must be known before the
// metadata store is opened.
type Superblock struct {
	Compat, Incompat uint64
	Array            UUID
	Secret           uint64 // seeds the checksums of records
	Device           UUID
	Slot             uint16 // of this device in Devices
	SegmentSize      uint32 // bytes
	Sequence         uint64 // grows with each update
	Epoch            uint64 // of the last opening for writing
	CutLSN           uint64 // the last LSN of all epochs before Epoch
	Served           bool   // every device present had Epoch before a client was served
	Clean            bool   // closed in order
	Boot             UUID   // boot id of the host that opened it last
	Incarnation      uint64 // changes when unflushed writes may have been lost
	Checkpoint       uint64 // number of one that the metadata store has, or had: it must not have an older one
	Devices          []DeviceRow
}

// EncodeSuperblock returns the SuperblockSize bytes of s.
func EncodeSuperblock(s *Superblock) []byte {
	p := make([]byte, SuperblockSize)
	le := binary.LittleEndian
	copy(p, superMagic)
	le.PutUint32(p[8:], Version)
	le.PutUint32(p[12:], uint32(len(s.Devices)))
	le.PutUint64(p[16:], s.Compat)
	le.PutUint64(p[24:], s.Incompat)
	copy(p[32:], s.Array[:])
	copy(p[48:], s.Device[:])
	le.PutUint64(p[64:], s.Secret)
	le.PutUint32(p[72:], s.SegmentSize)
	le.PutUint16(p[76:], s.Slot)
	p[78], p[79] = flag(s.Served), flag(s.Clean)
	le.PutUint64(p[80:], s.Sequence)
	le.PutUint64(p[88:], s.Epoch)
	le.PutUint64(p[96:], s.CutLSN)
	le.PutUint64(p[104:], s.Incarnation)
	le.PutUint64(p[128:], s.Checkpoint)
	copy(p[112:], s.Boot[:])
	for i, d := range s.Devices {
		row := p[superFixed+i*deviceRowSize:]
		copy(row, d.ID[:])
		le.PutUint32(row[16:], d.Segments)
		row[20] = byte(d.State)
	}
	le.PutUint32(p[superCRCOffset:], Checksum(p[:superCRCOffset]))
	return p
}

// ErrNoSuperblock: nothing says that there ever was a superblock. It is an
// ErrInvalid too.
var ErrNoSuperblock = fmt.Errorf("%w: no lsad superblock (wrong magic)", ErrInvalid)

// DecodeSuperblock reads what EncodeSuperblock wrote. Errors wrap ErrInvalid.
func DecodeSuperblock(p []byte) (*Superblock, error) {
	le := binary.LittleEndian
	if len(p) != SuperblockSize || string(p[:len(superMagic)]) != superMagic {
		return nil, ErrNoSuperblock
	}
	intact := le.Uint32(p[superCRCOffset:]) == Checksum(p[:superCRCOffset])
	switch v := le.Uint32(p[8:]); {
	case v > Version && intact: // else it may as well be a flipped bit
		return nil, fmt.Errorf("%w: superblock of format version %d, this build reads %d; upgrade lsad", ErrNewer, v, Version)
	case v != Version:
		return nil, invalid("superblock of format version %d, this build reads %d", v, Version)
	case !intact:
		return nil, invalid("superblock checksum mismatch")
	}
	s := &Superblock{
		Compat: le.Uint64(p[16:]), Incompat: le.Uint64(p[24:]),
		Array: UUID(p[32:48]), Device: UUID(p[48:64]), Secret: le.Uint64(p[64:]),
		SegmentSize: le.Uint32(p[72:]), Slot: le.Uint16(p[76:]),
		Served: p[78] != 0, Clean: p[79] != 0,
		Sequence: le.Uint64(p[80:]), Epoch: le.Uint64(p[88:]), CutLSN: le.Uint64(p[96:]),
		Incarnation: le.Uint64(p[104:]), Boot: UUID(p[112:128]),
		Checkpoint: le.Uint64(p[128:]),
	}
	if bits := s.Incompat &^ FeaturesIncompat; bits != 0 {
		return nil, fmt.Errorf("%w: superblock needs features %#x, which this build does not know; upgrade lsad", ErrNewer, bits)
	}
	if s.SegmentSize < MinSegmentSize || s.SegmentSize > MaxSegmentSize || s.SegmentSize&(s.SegmentSize-1) != 0 {
		return nil, invalid("superblock with segments of %d bytes", s.SegmentSize)
	}
	n := le.Uint32(p[12:])
	if n == 0 || n > MaxDevices || uint32(s.Slot) >= n {
		return nil, invalid("superblock of slot %d among %d devices", s.Slot, n)
	}
	for i := range int(n) {
		row := p[superFixed+i*deviceRowSize:]
		d := DeviceRow{ID: UUID(row[:16]), Segments: le.Uint32(row[16:]), State: DeviceState(row[20])}
		if d.State > DeviceLost {
			return nil, invalid("superblock with device %d in unknown state %d", i, d.State)
		}
		s.Devices = append(s.Devices, d)
	}
	if s.Devices[s.Slot].ID != s.Device {
		return nil, invalid("superblock whose device table has another device in slot %d", s.Slot)
	}
	return s, nil
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}
