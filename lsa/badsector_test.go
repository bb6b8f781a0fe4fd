package lsa

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

var errBadSector = errors.New("the sector cannot be read")

// badRig is an array of one copy in which records of several layers lie in
// sealed segments, each with live and with dead blocks.
type badRig struct {
	*rig
	h          *Handle
	data, snap []byte
	bad        map[int64]bool // sectors of device 0 that cannot be read, by their bytes
}

func newBadRig(t *testing.T, devices int) *badRig {
	rng := rand.New(rand.NewPCG(5, 31))
	b := &badRig{rig: newRig(t, devices, 48), bad: map[int64]bool{}}
	others := b.a.devs()[1:devices]
	for _, d := range others {
		d.draining.Store(true) // all goes to device 0
	}
	b.h = b.volume("v", 3<<20)
	b.data = make([]byte, b.h.Size())
	scribble := func(from, step int) {
		for i := from; i < len(b.data)/format.BlockSize; i += step {
			part := b.data[i*format.BlockSize:][:format.BlockSize]
			fill(part, rng)
			mustWrite(t, b.h, int64(i)*format.BlockSize, part)
		}
	}
	scribble(0, 1)
	b.snap = bytes.Clone(b.data)
	if err := b.a.Snapshot(context.Background(), "v", "s"); err != nil {
		t.Fatal(err)
	}
	scribble(0, 2)
	scribble(0, 4)
	if err := b.h.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, d := range others {
		d.draining.Store(false)
	}
	if err := b.a.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	hook := func(op blockdev.Op) error {
		if op.Device == b.mems[0] && (op.Kind == blockdev.OpRead || op.Kind == blockdev.OpTryRead) {
			for off := range b.bad {
				if op.Off < off+format.SectorSize && off < op.Off+op.Len {
					return errBadSector
				}
			}
		}
		return nil
	}
	b.hook.Store(&hook)
	return b
}

// sectors returns, of each sealed segment of device 0 with live blocks, where a
// header of a live block lies, a dead block, and a live one of another record.
func (b *badRig) sectors(fn func(seg uint32, header, dead, live int64)) {
	b.t.Helper()
	d, n := b.a.devs()[0], 0
	for i := range d.segs {
		s, seg := &d.segs[i], uint32(i)
		if s.state != segSealed || s.live.Load() == 0 {
			continue
		}
		blocks, err := b.a.liveIn(context.Background(), d, seg)
		if err != nil {
			b.t.Fatal(err)
		}
		isLive := map[uint32]bool{}
		for _, l := range blocks {
			isLive[l.place.Sector()] = true
		}
		var header, dead, live int64
		_, err = b.a.eachHeader(d, seg, s.used, s.generation, func(h *format.RecordHeader, _ []byte) error {
			switch first := h.Sector + uint32(h.Sectors); {
			case h.TotalSectors() == uint32(h.Sectors):
			case !isLive[first]:
				dead = d.offset(seg, first+3)
			case header == 0:
				header = d.offset(seg, h.Sector)
			default:
				live = d.offset(seg, first+3)
			}
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
		if header != 0 && dead != 0 && live != 0 {
			fn(seg, header, dead, live)
			n++
		}
	}
	if n < 2 {
		b.t.Fatalf("%d segments are as this test needs them", n)
	}
}

func (b *badRig) verify(when string) {
	b.t.Helper()
	b.expect(when, b.h, b.data)
	s, err := b.a.OpenVolume("v@s", OpenOptions{Client: "test", ReadOnly: true})
	if err != nil {
		b.t.Fatal(err)
	}
	b.expect(when+", the snapshot", s, b.snap)
	if err := s.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// badHeaders are ways to spoil a segment without spoiling a live block.
var badHeaders = map[string]func(b *badRig, header, dead int64){
	"a flipped bit in a header":     func(b *badRig, header, _ int64) { b.mems[0].Corrupt(header+20, []byte{4}) },
	"a header that cannot be read":  func(b *badRig, header, _ int64) { b.bad[header] = true },
	"dead data that cannot be read": func(b *badRig, _, dead int64) { b.bad[dead] = true },
	"all of it": func(b *badRig, header, dead int64) {
		b.mems[0].Corrupt(header+20, []byte{4})
		b.bad[dead] = true
		b.bad[dead+format.SectorSize] = true
	},
}

// TestCollectBadSector: a segment is emptied, and used again, though a header in
// it is damaged, or a sector without a live block cannot be read.
func TestCollectBadSector(t *testing.T) {
	for name, spoil := range badHeaders {
		t.Run(name, func(t *testing.T) {
			b := newBadRig(t, 1)
			var segs []uint32
			b.sectors(func(seg uint32, header, dead, _ int64) { segs = append(segs, seg); spoil(b, header, dead) })
			for _, seg := range segs {
				if _, err := b.a.Collect(context.Background(), 0, seg, nil); err != nil {
					t.Fatal(err)
				}
				if live := b.a.devs()[0].segs[seg].live.Load(); live != 0 {
					t.Fatalf("%d blocks are left in segment %d", live, seg)
				}
			}
			if err := b.a.Checkpoint(context.Background()); err != nil {
				t.Fatal(err)
			}
			for _, seg := range segs {
				if s := b.a.devs()[0].segs[seg].state; s == segSealed {
					t.Errorf("segment %d is %v", seg, s)
				}
			}
			b.verify("collected")
		})
	}
}

// TestRemoveBadSector: a device with damaged headers and bad sectors is emptied
// and taken out, without force.
func TestRemoveBadSector(t *testing.T) {
	for name, spoil := range badHeaders {
		t.Run(name, func(t *testing.T) {
			b := newBadRig(t, 2)
			b.sectors(func(_ uint32, header, dead, _ int64) { spoil(b, header, dead) })
			if _, err := b.a.RemoveDevice(context.Background(), 0, RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
			b.verify("removed")
		})
	}
}

// TestRemoveBadBlock: blocks that cannot be read keep a device in, and are all
// that force gives up.
func TestRemoveBadBlock(t *testing.T) {
	b := newBadRig(t, 2)
	lost := 0
	b.sectors(func(_ uint32, header, dead, live int64) {
		b.mems[0].Corrupt(header+20, []byte{4})
		b.bad[dead] = true
		b.bad[live] = true
		lost++
	})
	if _, err := b.a.RemoveDevice(context.Background(), 0, RemoveOptions{}); !errors.Is(err, ErrDamaged) {
		t.Fatalf("removed with %d bad blocks: %v", lost, err)
	}
	if live := b.a.devs()[0].live.Load(); live != int64(lost) {
		t.Fatalf("%d blocks are left, %d cannot be read", live, lost)
	}
	if _, err := b.a.RemoveDevice(context.Background(), 0, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	s, err := b.a.OpenVolume("v@s", OpenOptions{Client: "test", ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	failed := map[int64]bool{} // a block of a snapshot may be the volume's, too
	for off := 0; off < len(b.data); off += format.BlockSize {
		for h, want := range map[*Handle][]byte{b.h: b.data, s: b.snap} {
			got := make([]byte, format.BlockSize)
			if err := h.ReadAt(got, int64(off)); err != nil {
				failed[int64(off)] = true
			} else if !bytes.Equal(got, want[off:][:len(got)]) {
				t.Fatalf("wrong bytes at %d", off)
			}
		}
	}
	if len(failed) == 0 || len(failed) > lost {
		t.Fatalf("%d blocks are lost, of %d that could not be read", len(failed), lost)
	}
}

// TestCollectUnreadable: where a segment cannot be read at all nothing is said
// of its blocks, after few tries: its device may come back.
func TestCollectUnreadable(t *testing.T) {
	b := newBadRig(t, 1)
	var seg uint32
	b.sectors(func(s uint32, _, _, _ int64) { seg = s })
	reads := 0
	hook := func(op blockdev.Op) error {
		if op.Kind == blockdev.OpRead {
			reads++
			return errBadSector
		}
		return nil
	}
	b.hook.Store(&hook)
	_, err := b.a.Collect(context.Background(), 0, seg, nil)
	if !errors.Is(err, errUnreadable) || !errors.Is(err, errBadSector) || reads > 40 {
		t.Fatalf("after %d reads: %v", reads, err)
	}
	b.hook.Store(nil)
	if b.a.devs()[0].segs[seg].damaged {
		t.Fatal("its blocks are called damaged")
	}
	b.verify("as before")
}
