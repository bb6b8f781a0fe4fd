package format

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
)

func randomSuperblock(rng *rand.Rand) *Superblock {
	id := func() (u UUID) {
		binary.LittleEndian.PutUint64(u[:], rng.Uint64())
		binary.LittleEndian.PutUint64(u[8:], rng.Uint64())
		return u
	}
	n := 1 + rng.IntN(MaxDevices)
	s := &Superblock{
		Compat: rng.Uint64(), Array: id(), Secret: rng.Uint64(), Slot: uint16(rng.IntN(n)), SegmentSize: MinSegmentSize << rng.IntN(15),
		Sequence: rng.Uint64(), Epoch: rng.Uint64(), CutLSN: rng.Uint64(), Served: rng.IntN(2) == 0, Clean: rng.IntN(2) == 0, Boot: id(), Incarnation: rng.Uint64(), Checkpoint: rng.Uint64(),
	}
	for range n {
		s.Devices = append(s.Devices, DeviceRow{ID: id(), Segments: rng.Uint32(), State: DeviceState(rng.IntN(3))})
	}
	s.Device = s.Devices[s.Slot].ID
	return s
}

func TestSuperblockRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 200 {
		want := randomSuperblock(rng)
		p := EncodeSuperblock(want)
		got, err := DecodeSuperblock(p)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v became %+v, %v", want, got, err)
		}
		p[rng.IntN(len(p))] ^= 1 << rng.IntN(8)
		if _, err := DecodeSuperblock(p); !errors.Is(err, ErrInvalid) {
			t.Fatalf("a superblock passed with a bit flipped: %v", err)
		}
	}
}

func TestBlankDeviceHasNoSuperblock(t *testing.T) {
	for _, p := range [][]byte{nil, make([]byte, 100), make([]byte, SuperblockSize), []byte("lsad\x00arr")} {
		if _, err := DecodeSuperblock(p); !errors.Is(err, ErrNoSuperblock) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%d bytes: %v", len(p), err)
		}
	}
	p := EncodeSuperblock(goldenSuperblock())
	p[200] = 1
	if _, err := DecodeSuperblock(p); errors.Is(err, ErrNoSuperblock) {
		t.Errorf("a damaged superblock counts as none: %v", err)
	}
}

func TestDeviceStateString(t *testing.T) {
	for s, want := range map[DeviceState]string{DeviceInService: "in service", DeviceReadOnly: "read-only", DeviceGone: "gone", 9: "unknown"} {
		if s.String() != want {
			t.Errorf("state %d is %q", s, s)
		}
	}
}

// FuzzSuperblock: no superblock makes a reader panic, and one that is accepted
// can be used without further checks.
func FuzzSuperblock(f *testing.F) {
	f.Add(EncodeSuperblock(goldenSuperblock()))
	f.Add(make([]byte, SuperblockSize))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) == SuperblockSize {
			p = append([]byte(nil), p...)
			binary.LittleEndian.PutUint32(p[superCRCOffset:], Checksum(p[:superCRCOffset]))
		}
		s, err := DecodeSuperblock(p)
		if err != nil {
			return
		}
		if len(s.Devices) > MaxDevices || int(s.Slot) >= len(s.Devices) || s.SegmentSize > MaxSegmentSize || s.Incompat&^FeaturesIncompat != 0 {
			t.Fatalf("accepted %+v", s)
		}
		if again, err := DecodeSuperblock(EncodeSuperblock(s)); err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}
