package lsa

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// Devices of different sizes: what recovery finds in a segment that the smaller
// one does not have.
func TestReopenUnequalDevices(t *testing.T) {
	r := newRigOf(t, 12, 96)
	h := r.volume("v", 12<<20)
	rng := rand.New(rand.NewPCG(6, 6))
	data := make([]byte, h.Size())
	for round := range 6 {
		for i := round * 512; i < (round+1)*512; i++ {
			p := data[i*format.BlockSize:][:format.BlockSize]
			fill(p, rng)
			if err := write(h, int64(i)*format.BlockSize, p); err != nil {
				t.Fatal(err)
			}
		}
		r.kill(rng)
		h = r.handle("v")
	}
	r.expect("in the end", h, data)
}

// tornRig has a segment that was opened after the last checkpoint: three records of one, one and four blocks, the
// second of which did not get there. Its use before was longer, and ended where the third one has its data.
func tornRig(t *testing.T, rng *rand.Rand) (r *rig, seg uint32, third []byte) {
	const earlier = 40 // sectors
	r = newRig(t, 1, 24)
	h := r.volume("v", 4<<20)
	d := r.a.devs()[0]
	r.a.append.mu.Lock()
	for i := range d.segs {
		if s := &d.segs[i]; s.state != segOpen {
			s.used = earlier
			s.dirty.Store(true)
		}
	}
	r.a.append.mu.Unlock()
	block := make([]byte, 4*format.BlockSize)
	put := func(blocks int) {
		t.Helper()
		fill(block, rng)
		if err := write(h, 0, block[:blocks*format.BlockSize]); err != nil {
			t.Fatal(err)
		}
	}
	put(1)
	if err := r.a.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	stream := &d.streams[originUser]
	for before := stream.seg; stream.seg == before; {
		put(1)
	}
	seg = stream.seg
	put(1)
	put(4)
	if stream.next != 9+9+33 {
		t.Fatalf("the stream is at sector %d", stream.next)
	}
	old := r.a
	r.mems, r.fs = blockdev.KillAll(rng, r.mems), r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
	old.Close()
	third = make([]byte, format.SectorSize)
	if err := r.mems[0].ReadAt(third, d.offset(seg, 18)); err != nil {
		t.Fatal(err)
	}
	if err := r.mems[0].WriteVec([][]byte{make([]byte, 9*format.SectorSize)}, d.offset(seg, 9)); err != nil {
		t.Fatal(err)
	}
	r.open()
	if got := r.a.devs()[0].streams[originUser]; !got.open || got.seg != seg {
		t.Fatalf("the segment was not opened again: %+v", got)
	}
	return r, seg, third
}

// keptAfter writes some blocks and sees that they are there after a kill -9 and a loss of power.
func (r *rig) keptAfter(rng *rand.Rand) {
	h := r.handle("v")
	data := make([]byte, 12*format.BlockSize)
	fill(data, rng)
	for off := 0; off < len(data); off += format.BlockSize {
		if err := write(h, int64(off), data[off:off+format.BlockSize]); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := h.Flush(); err != nil {
		r.t.Fatal(err)
	}
	for what, again := range map[string]func(*rand.Rand){"kill": r.kill, "loss of power": r.crash} {
		again(rng)
		r.expect("after a "+what, r.handle("v"), data)
	}
}

// The room behind what counts is what this use of the segment left, not an earlier one: what was dropped there is
// wiped. Else a dropped record reaches over those that are appended behind it, and is stepped over with them.
func TestReopenedBehindThisUse(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	r, seg, _ := tornRig(t, rng)
	if next := r.a.devs()[0].streams[originUser].next; next != 9 {
		t.Errorf("appends go on at sector %d of segment %d", next, seg)
	}
	r.keptAfter(rng)
}

// An array where that went wrong opens, with all that it has.
func TestRecordsWithinDroppedOne(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	r, seg, third := tornRig(t, rng)
	d := r.a.devs()[0]
	r.a.append.mu.Lock()
	d.streams[originUser].next, d.segs[seg].used = 40, 40
	r.a.append.mu.Unlock()
	if err := r.mems[0].WriteVec([][]byte{third}, d.offset(seg, 18)); err != nil {
		t.Fatal(err)
	}
	r.keptAfter(rng)
}
