package lsa

import (
	"bytes"
	"context"
	"testing"
	"time"

	"lsad/lsa/format"
)

// TestRebuild: after the loss of one device every block gets a second copy again
// on the others, and then another device may go.
func TestRebuild(t *testing.T) {
	r, h, data, rng := newPair(t, 4)
	if err := r.a.Snapshot(context.Background(), "v", "s"); err != nil {
		t.Fatal(err)
	}
	old := append([]byte(nil), data...)
	fill(data[1<<20:2<<20], rng)
	if err := write(h, 1<<20, data[1<<20:2<<20]); err != nil {
		t.Fatal(err)
	}
	r.opts.Degraded = true
	for _, victim := range []int{1, 3} {
		r.away[victim] = true
		r.kill(rng)
		r.rebuilt()
		r.expect("rebuilt", r.handle("v"), data)
		r.expect("rebuilt", r.handle("v@s"), old)
		r.crash(rng)
		r.expect("rebuilt, after a loss of power", r.handle("v"), data)
		r.expect("rebuilt, after a loss of power", r.handle("v@s"), old)
	}
	if one, _ := r.copiesOf("v"); one != 0 {
		t.Errorf("%d blocks have one copy", one)
	}
}

// rebuilt waits until the array's own rebuild is done, and sees that one more
// finds nothing to do.
func (r *rig) rebuilt() {
	r.t.Helper()
	for tries := 0; ; tries++ {
		n, err := r.a.Rebuild(context.Background(), 1<<40)
		if err == nil && n == 0 {
			break
		}
		if tries == 10000 {
			r.t.Fatalf("the rebuild does not end: %d blocks, %v", n, err)
		}
		time.Sleep(time.Millisecond)
	}
	for _, l := range r.a.layersOfTwo() {
		pages, err := r.a.blocks.PagesIn(l, 0, 8, true)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, pg := range pages {
			for off := range uint64(1024) {
				e, ok, err := r.a.blocks.OwnEntry(l, pg*1024+off)
				if err != nil {
					r.t.Fatal(err)
				}
				if ok && (e.Blocks() != 2 || r.a.away(e.Place[0]) || r.a.away(e.Place[1])) {
					r.t.Fatalf("block %d of layer %d lies at %v and %v", pg*1024+off, l, e.Place[0], e.Place[1])
				}
			}
		}
	}
}

// TestRebuildOfFailedDevice: a device that fails under way is replaced by what
// room the others have, while the array runs.
func TestRebuildOfFailedDevice(t *testing.T) {
	r, h, data, rng := newPair(t, 3)
	r.dead[1].Store(true)
	fill(data[:64<<10], rng)
	for off := 0; off < 64<<10; off += 4096 { // one of them meets the device
		if err := write(h, int64(off), data[off:off+4096]); err != nil {
			t.Fatal(err)
		}
	}
	_ = h.Flush()
	for r.a.writableDevices() == 3 {
		if err := write(h, 0, data[:4096]); err != nil {
			t.Fatal(err)
		}
		_ = h.Flush()
	}
	r.rebuilt()
	r.expect("a device failed", h, data)
}

func TestScrub(t *testing.T) {
	r, h, data, _ := newPair(t, 2)
	clean, err := r.a.Scrub(context.Background(), 0)
	if blocks := int64(len(data) / format.BlockSize); err != nil || clean.Blocks != 2*blocks || clean.Bad != 0 {
		t.Fatalf("%+v, %v", clean, err)
	}
	if err := r.a.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.copies = 1
	one := r.volume("one", 1<<20)
	if err := write(one, 0, data[:1<<20]); err != nil {
		t.Fatal(err)
	}
	r.spoilData(1)
	bad, err := r.a.Scrub(context.Background(), 0)
	if err != nil || bad.Bad == 0 || bad.Repaired+bad.Lost != bad.Bad {
		t.Fatalf("%+v, %v", bad, err)
	}
	after, err := r.a.Scrub(context.Background(), 0)
	if err != nil || after.Repaired != 0 || after.Bad != bad.Lost || int(min(after.Lost, mostProblems)) != len(after.Problems) {
		t.Fatalf("once more: %+v, %v", after, err)
	}
	r.expect("scrubbed", h, data)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.a.Scrub(ctx, 0); err == nil {
		t.Error("a scrub that was called off says nothing")
	}
}

// TestScrubBothBad: a block of which both copies are bad is two copies lost, and one block to name.
func TestScrubBothBad(t *testing.T) {
	r := newRig(t, 2, 72)
	r.copies = 2
	h := r.volume("v", 1<<20)
	defer h.Close()
	const blocks = 8
	if err := write(h, 0, bytes.Repeat([]byte("b"), blocks*format.BlockSize)); err != nil {
		t.Fatal(err)
	}
	if err := r.a.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.spoilData(0)
	r.spoilData(1)
	got, err := r.a.Scrub(context.Background(), 0)
	if err != nil || got.Bad != 2*blocks || got.Lost != 2*blocks || len(got.Problems) != blocks {
		t.Fatalf("%+v, %v", got, err)
	}
}
