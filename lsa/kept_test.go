package lsa

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
)

// TestRoomGoneBelow: a segment of an earlier life, of which a loss of power undid that
// it was given room below, is not taken for one that has it: in a full file system
// that costs room and no more.
func TestRoomGoneBelow(t *testing.T) {
	r := newRig(t, 1, 40)
	r.opts.CheckpointBytes = 1 << 30 // none frees them before the end
	r.reopen()
	h := r.volume("v", 8<<20)
	for range 3 {
		mustWrite(t, h, 0, make([]byte, 1<<20))
	}
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	d := r.a.devs()[0]
	var gone []int64
	for i := range d.segs {
		if s := &d.segs[i]; s.state == segSealed && s.live.Load() == 0 {
			gone = append(gone, d.offset(uint32(i), 0))
		}
	}
	if len(gone) < 4 {
		t.Fatalf("%d segments are emptied", len(gone))
	}
	if err := r.a.Checkpoint(context.Background()); err != nil { // says that they are, and is all that the next life knows
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 1))
	mems := blockdev.CrashAll(rng, r.mems, func() { r.fs = r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}) })
	r.a.Close()
	r.mems = mems
	for _, off := range gone {
		if err := r.mems[0].Discard(off, d.segBytes); err != nil {
			t.Fatal(err)
		}
	}
	r.mems[0].SetSpace(r.mems[0].Used() + 3*d.segBytes)
	r.open()
	h = r.handle("v")
	var err error
	for range 20 {
		if err = write(h, 0, make([]byte, 1<<20)); err != nil {
			break
		}
	}
	if err != nil && !errors.Is(err, ErrNoSpace) || r.a.failed() != nil {
		t.Fatalf("write: %v, the array: %v", err, r.a.failed())
	}
	if err := h.Trim(0, 1<<20); err != nil {
		t.Fatal(err)
	}
}

// TestNoRoomInSegment: where the only device has no room for an append after all, the
// record, or what voids it, goes to another segment of it, and the array goes on.
func TestNoRoomInSegment(t *testing.T) {
	for fails := 1; fails <= 2; fails++ {
		r := newRig(t, 1, 40)
		h := r.volume("v", 1<<20)
		data := make([]byte, 1<<20)
		fill(data, rand.New(rand.NewPCG(3, 2)))
		mustWrite(t, h, 0, data)
		var failed atomic.Int32
		hook := func(op blockdev.Op) error {
			if op.Kind == blockdev.OpWrite && failed.Add(1) <= int32(fails) {
				return blockdev.ErrNoSpace
			}
			return nil
		}
		r.a.checkpoint.mu.Lock() // it writes, too
		r.hook.Store(&hook)
		err := h.Trim(0, 64<<10)
		r.hook.Store(nil)
		r.a.checkpoint.mu.Unlock()
		if fails == 1 {
			clear(data[:64<<10])
		}
		if fails == 1 && err != nil || fails == 2 && !errors.Is(err, blockdev.ErrNoSpace) || r.a.failed() != nil {
			t.Fatalf("%d failed: %v, the array: %v", fails, err, r.a.failed())
		}
		fill(data[128<<10:256<<10], rand.New(rand.NewPCG(3, 3)))
		mustWrite(t, h, 128<<10, data[128<<10:256<<10])
		r.expect("alive", h, data)
		r.kill(rand.New(rand.NewPCG(3, 4)))
		r.expect("after kill -9", r.handle("v"), data)
	}
}
