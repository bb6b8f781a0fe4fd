package lsa

import (
	"context"
	"math/rand/v2"
	"testing"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// byAge is a placement that tests can foresee.
type byAge struct{ classes int }

func (p byAge) Class(now, written uint64, known bool, class int, moved bool) int {
	if !known {
		return 0
	}
	return int(written) % p.classes
}

// newSeparating is an array, more than half full, that separates blocks.
func newSeparating(t *testing.T) (*rig, *Handle, []byte, *rand.Rand) {
	t.Helper()
	r := newRig(t, 2, 48)
	r.opts.Placement, r.opts.SeparateFrom = byAge{MaxClasses}, 48
	r.reopen()
	h := r.volume("v", r.a.Status().Capacity*3/4&^(format.BlockSize-1))
	data := make([]byte, h.Size())
	rng := rand.New(rand.NewPCG(4, 4))
	for off := 0; off < len(data); off += 16 << 10 {
		part := data[off:min(off+16<<10, len(data))]
		fill(part, rng)
		if err := write(h, int64(off), part); err != nil {
			t.Fatal(err)
		}
	}
	return r, h, data, rng
}

// Blocks lie in segments of the classes that the placement gave them, but for
// batches that would have opened more segments than were prepared; what the
// volume reads is the same, also after crashes and collections.
func TestSeparates(t *testing.T) {
	r, h, data, rng := newSeparating(t)
	right, all := 0, 0
	for range 40 {
		var offs []int64
		var parts [][]byte
		want := map[uint64]int{}
		if 2*r.a.used.Load() < r.a.limit.Load() {
			t.Fatalf("%d of %d blocks in use", r.a.used.Load(), r.a.limit.Load())
		}
		for _, i := range rng.Perm(len(data) / format.BlockSize)[:32] {
			part := data[i*format.BlockSize:][:format.BlockSize]
			fill(part, rng)
			offs, parts = append(offs, int64(i)*format.BlockSize), append(parts, part)
			want[uint64(i)] = int(entryOf(t, h, uint64(i)).LSN) % MaxClasses
		}
		errs := make([]error, len(offs))
		h.WriteBatch(offs, parts, errs)
		for i, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
			block := uint64(offs[i]) / format.BlockSize
			e := entryOf(t, h, block)
			if all++; int(r.a.devOf(e.Place[0]).segs[e.Place[0].Segment()].class.Load()) == want[block] {
				right++
			}
		}
		r.collect()
	}
	if right < all/2 { // an eighth would be there by chance
		t.Errorf("%d of %d blocks are in a segment of their class", right, all)
	}
	r.expect("alive", h, data)
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	r.crash(rng)
	r.expect("after a crash", r.handle("v"), data)
}

func entryOf(t *testing.T, h *Handle, block uint64) blockmap.Entry {
	t.Helper()
	var e [1]blockmap.Entry
	if err := h.a.blocks.Lookup(h.head(), block, e[:]); err != nil {
		t.Fatal(err)
	}
	return e[0]
}

// Writes of one batch that overlap take effect in order, whatever classes their
// first blocks are of.
func TestSeparatedOverlaps(t *testing.T) {
	r, h, data, rng := newSeparating(t)
	for range 200 {
		at := rng.IntN(len(data)/format.BlockSize - 8)
		var offs []int64
		var parts [][]byte
		for range 4 {
			first, n := at+rng.IntN(4), 1+rng.IntN(4)
			part := make([]byte, n*format.BlockSize)
			fill(part, rng)
			offs, parts = append(offs, int64(first)*format.BlockSize), append(parts, part)
			copy(data[first*format.BlockSize:], part)
		}
		errs := make([]error, len(offs))
		h.WriteBatch(offs, parts, errs)
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		r.collect()
	}
	r.expect("alive", h, data)
	r.kill(rng)
	r.expect("after kill -9", r.handle("v"), data)
}

// Where no room is left for a segment of each class, batches still get on.
func TestSeparatesNearlyFull(t *testing.T) {
	r, h, data, rng := newSeparating(t)
	v := r.volume("w", r.a.Status().Capacity)
	part := make([]byte, 32<<10)
	for off := int64(0); ; off += int64(len(part)) {
		fill(part, rng)
		if err := write(v, off, part); err != nil {
			break // full
		}
	}
	for range 400 {
		i := rng.IntN(len(data)/format.BlockSize - 4)
		p := data[i*format.BlockSize:][:4*format.BlockSize]
		fill(p, rng)
		if err := write(h, int64(i)*format.BlockSize, p); err != nil {
			t.Fatal(err)
		}
		if i%8 == 0 {
			r.collect()
		}
	}
	if err := v.Trim(0, v.Size()); err != nil {
		t.Fatal(err)
	}
	r.expect("full", h, data)
}

// A crash costs a nearly full array no segment: what was open is appended to
// again.
func TestCrashesCostNoSegments(t *testing.T) {
	r := newRig(t, 2, 24)
	h := r.volume("v", 4<<20)
	rng := rand.New(rand.NewPCG(5, 5))
	data := make([]byte, 4<<20)
	unused := func() (n int) {
		for _, d := range r.a.Devices() {
			n += d.Unused
		}
		return n
	}
	first := -1
	for range 60 {
		for range 2 {
			i := rng.IntN(len(data) / format.BlockSize)
			p := data[i*format.BlockSize:][:format.BlockSize]
			fill(p, rng)
			if err := write(h, int64(i)*format.BlockSize, p); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.Flush(); err != nil {
			t.Fatal(err)
		}
		r.crash(rng)
		h = r.handle("v")
		if first < 0 {
			first = unused()
		}
	}
	// 120 blocks were written, two segments' worth.
	if n := unused(); n < first-3 {
		t.Errorf("%d segments unused after 60 crashes, %d after the first", n, first)
	}
	r.expect("in the end", h, data)
	if err := r.a.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
}
