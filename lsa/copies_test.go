package lsa

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// newPair is an array with a volume of two copies that holds data.
func newPair(t *testing.T, devices int) (*rig, *Handle, []byte, *rand.Rand) {
	t.Helper()
	rng := rand.New(rand.NewPCG(uint64(devices), 21))
	r := newRig(t, devices, 144/devices)
	r.copies = 2
	h := r.volume("v", 4<<20)
	data := make([]byte, h.Size())
	for off := 0; off < len(data); off += 64 << 10 {
		part := data[off : off+64<<10]
		fill(part, rng)
		if err := write(h, int64(off), part); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	return r, h, data, rng
}

func (r *rig) expect(when string, h *Handle, want []byte) {
	r.t.Helper()
	got := make([]byte, len(want))
	if err := h.ReadAt(got, 0); err != nil {
		r.t.Fatalf("%s: %v", when, err)
	}
	if !bytes.Equal(got, want) {
		r.t.Fatalf("%s: wrong bytes", when)
	}
	if err := r.a.VerifyBooks(); err != nil {
		r.t.Fatalf("%s: %v", when, err)
	}
}

// spoil changes a bit of every sector of a device's segments.
func (r *rig) spoil(slot int) {
	mask := make([]byte, r.mems[slot].Size()-format.SegmentsOffset)
	for i := 100; i < len(mask); i += format.SectorSize {
		mask[i] = 4
	}
	r.mems[slot].Corrupt(format.SegmentsOffset, mask)
}

// copiesOf counts the blocks of a volume that have so many copies.
func (r *rig) copiesOf(name string) (one, two int) {
	r.t.Helper()
	v, err := r.a.catalog.find(name)
	if err != nil {
		r.t.Fatal(err)
	}
	entries := make([]blockmap.Entry, v.Size/format.BlockSize)
	if err := r.a.blocks.Lookup(v.Head, 0, entries); err != nil {
		r.t.Fatal(err)
	}
	for i := range entries {
		switch entries[i].Blocks() {
		case 1:
			one++
		case 2:
			two++
		}
	}
	return one, two
}

func TestCopiesLieApart(t *testing.T) {
	for _, devices := range []int{2, 3, 4} {
		t.Run(fmt.Sprint(devices, " devices"), func(t *testing.T) {
			r, h, data, _ := newPair(t, devices)
			r.expect("written", h, data)
			if one, two := r.copiesOf("v"); one != 0 || two != len(data)/format.BlockSize {
				t.Fatalf("%d blocks have one copy, %d two", one, two)
			}
			for _, d := range r.a.Devices() {
				if want := int64(2 * len(data) / devices); d.LiveBytes < want/2 || d.LiveBytes > want*2 {
					t.Errorf("device %d has %d of %d bytes: load is not spread", d.Slot, d.LiveBytes, 2*len(data))
				}
			}
			if used := r.a.Status().Used; used != int64(2*len(data)) {
				t.Errorf("%d bytes in use, want %d", used, 2*len(data))
			}
		})
	}
}

// TestDamageOfOneCopy: whatever happens to the bytes of one device, reads are
// right, repair what they meet, and collections do as well.
func TestDamageOfOneCopy(t *testing.T) {
	for _, collect := range []bool{false, true} {
		for slot := range 2 {
			t.Run(fmt.Sprint("device ", slot, ", collected ", collect), func(t *testing.T) {
				r, h, data, rng := newPair(t, 2)
				if collect { // garbage, so that there is something to collect
					for off := 0; off < len(data); off += 128 << 10 {
						fill(data[off:off+4096], rng)
						if err := write(h, int64(off), data[off:off+4096]); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := r.a.Checkpoint(context.Background()); err != nil {
					t.Fatal(err)
				}
				r.spoilData(slot)
				if collect {
					r.collectAll()
				}
				r.expect("one device damaged", h, data)
				if err := r.a.RepairNow(context.Background()); err != nil {
					t.Fatal(err)
				}
				r.scan(h, len(data))
				if err := r.a.RepairNow(context.Background()); err != nil {
					t.Fatal(err)
				}
				if m := r.a.Metrics(); m.Repaired == 0 {
					t.Error("nothing was repaired")
				}
				r.expect("repaired", h, data)
			})
		}
	}
}

// spoilData changes every block of data on a device that the map refers to.
func (r *rig) spoilData(slot int) {
	d := r.a.devs()[slot]
	_ = r.a.blocks.Each(func(k blockmap.Key, entries []blockmap.Entry, err error) error {
		for i := range entries {
			for _, p := range entries[i].Place {
				if p != 0 && int(p.Device()) == slot {
					r.mems[slot].Corrupt(d.offset(p.Segment(), p.Sector()), []byte{1})
				}
			}
		}
		return nil
	})
}

// scan reads each copy of each block and has the bad ones repaired.
func (r *rig) scan(h *Handle, n int) {
	r.t.Helper()
	buf := make([]byte, format.BlockSize)
	for block := range uint64(n / format.BlockSize) {
		_, e, err := r.a.owner(place{h.head(), block})
		if err != nil {
			r.t.Fatal(err)
		}
		for _, p := range e.Place {
			if r.a.readPlace(buf, []blockmap.Entry{placed(&e, p)}, 0, false) != nil {
				r.a.repairs.ask(repair{place{h.head(), block}, e.LSN, p})
			}
		}
	}
}

// collectAll collects every sealed segment once.
func (r *rig) collectAll() {
	r.t.Helper()
	for slot := range r.a.devs() {
		r.collectDevice(slot)
	}
}

func (r *rig) collectDevice(slot int) {
	r.t.Helper()
	var victims []uint32
	r.a.Segments(slot, func(s SegmentInfo) bool {
		if s.State == "sealed" {
			victims = append(victims, s.Segment)
		}
		return true
	})
	for _, seg := range victims {
		if _, err := r.a.Collect(context.Background(), slot, seg, nil); err != nil && !errors.Is(err, ErrInvalid) {
			r.t.Fatal(err)
		}
		if err := r.a.Checkpoint(context.Background()); err != nil {
			r.t.Fatal(err)
		}
	}
}

// TestRecoveryFromEitherCopy: a record of which one copy is damaged counts. A checkpoint in the background may come
// between the write and the end: then there was nothing to recover, and it is tried again.
func TestRecoveryFromEitherCopy(t *testing.T) {
	for slot := range 2 {
		for try := 1; ; try++ {
			r, _, data, rng := newPair(t, 2)
			r.opts.CheckpointBytes = 1 << 30
			r.reopen()
			h := r.handle("v")
			fill(data[:100<<10], rng)
			if err := write(h, 0, data[:100<<10]); err != nil {
				t.Fatal(err)
			}
			r.spoil(slot)
			r.kill(rng)
			r.expect("recovered", r.handle("v"), data)
			if r.a.Recovery().Records == 0 && try < 10 {
				continue
			}
			if n := r.a.Recovery().OneCopy; n == 0 {
				t.Error("no record is said to have one copy only")
			}
			break
		}
	}
}

// TestFailedCopy: a device that fails is taken out of service, and writes go
// on, to the others.
func TestFailedCopy(t *testing.T) {
	for devices := 2; devices <= 3; devices++ {
		t.Run(fmt.Sprint(devices, " devices"), func(t *testing.T) {
			r, h, data, rng := newPair(t, devices)
			r.dead[1].Store(true)
			for off := 0; off < len(data); off += 32 << 10 {
				fill(data[off:off+8192], rng)
				if err := write(h, int64(off), data[off:off+8192]); err != nil {
					t.Fatal(err)
				}
			}
			r.expect("a device is dead", h, data)
			r.a.rescueAll()
			if err := h.Flush(); err != nil {
				t.Fatal("flush with a dead device, all of whose records have another copy: ", err)
			}
			if s := r.a.Devices()[1].State; s != "read-only" {
				t.Errorf("the device is %s", s)
			}
			if err := r.a.Checkpoint(context.Background()); err != nil {
				t.Fatal(err)
			}
			r.kill(rng)
			r.expect("killed and opened again", r.handle("v"), data)
		})
	}
}

// TestMoveToDeadDevice: a second copy can go to the one device only that does not
// have the first. If that device dies meanwhile, the array goes on.
func TestMoveToDeadDevice(t *testing.T) {
	r, h, data, rng := newPair(t, 2)
	if err := r.a.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.spoilData(1)
	r.expect("one device damaged", h, data) // asks for repairs
	r.dead[1].Store(true)
	r.scan(h, len(data))
	_ = r.a.RepairNow(context.Background())
	for off := 0; off < len(data); off += 32 << 10 {
		fill(data[off:off+8192], rng)
		if err := write(h, int64(off), data[off:off+8192]); err != nil {
			t.Fatal(err)
		}
	}
	r.expect("a device died under a repair", h, data)
}

// TestReadWhileTurnsChange: that a device begins or ends to be collected in the
// middle of a read makes the read look for no block in the wrong place.
func TestReadWhileTurnsChange(t *testing.T) {
	r, h, data, rng := newPair(t, 2)
	data = data[:256<<10]
	for _, b := range rng.Perm(len(data) / 4096) {
		fill(data[b*4096:][:4096], rng)
		mustWrite(t, h, int64(b*4096), data[b*4096:][:4096])
	}
	mustWrite(t, h, 1<<20, make([]byte, 1<<20)) // behind them, so that their segment is sealed
	r.collectDevice(0)                          // which puts them one after the other, there
	ctx, stop := context.WithCancel(context.Background())
	var turns sync.WaitGroup
	turns.Go(func() {
		for d := r.a.devs()[0]; ctx.Err() == nil; {
			d.busy.Add(1)
			d.busy.Add(-1)
		}
	})
	got := make([]byte, len(data))
	for range 300 {
		if err := h.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	turns.Wait()
	if m := r.a.Metrics(); m.DamagedReads != 0 || !bytes.Equal(got, data) {
		t.Fatalf("%d blocks are called damaged", m.DamagedReads)
	}
}
