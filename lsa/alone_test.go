package lsa

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"lsad/internal/blockdev"
)

// TestAlone: what one device alone had the room for is not lost with that device
// once it was acknowledged.
func TestAlone(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	for _, lost := range []int{0, 1, 2} {
		r := newRig(t, 3, 32)
		r.copies = 2
		h := r.volume("v", 1<<20)
		data := make([]byte, 64<<10)
		fill(data, rng)
		if err := write(h, 0, data); err != nil {
			t.Fatal(err)
		}
		if err := r.a.Checkpoint(context.Background()); err != nil {
			t.Fatal(err)
		}
		full := func(op blockdev.Op) error {
			if op.Kind == blockdev.OpAllocate && op.Device != r.mems[lost] {
				return blockdev.ErrNoSpace
			}
			return nil
		}
		r.hook.Store(&full)
		others := func() (n uint64) {
			for slot, d := range r.a.devs() {
				if slot != lost {
					n += d.appended.Load()
				}
			}
			return n
		}
		before := others()
		r.a.append.mu.Lock()
		for slot, d := range r.a.devs() {
			if slot == lost {
				continue
			}
			d.prepared = nil
			for c := range d.streams {
				if s := &d.streams[c]; s.open {
					r.a.seal(d, s)
				}
			}
		}
		r.a.append.mu.Unlock()
		if err := r.a.Snapshot(context.Background(), "v", "s"); err != nil {
			t.Fatal(err)
		}
		if err := r.a.ResizeVolume(context.Background(), "v", 2<<20, false); err != nil {
			t.Fatal(err)
		}
		if err := h.Trim(0, 32<<10); err != nil {
			t.Fatal(err)
		}
		if err := h.Flush(); err != nil {
			t.Fatal(err)
		}
		if others() != before {
			t.Fatal("some of it had room for two copies: the test tests nothing")
		}
		r.hook.Store(nil)
		r.away[lost], r.opts.Degraded = true, true
		r.kill(rng)
		v, err := r.a.Volume("v")
		if err != nil || v.Size != 2<<20 || len(v.Snapshots) != 1 {
			t.Errorf("without device %d: %+v, %v", lost, v, err)
		}
		got := make([]byte, 64<<10)
		if err := r.handle("v").ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		clear(data[:32<<10])
		if !bytes.Equal(got, data) {
			t.Errorf("without device %d: the volume holds something else", lost)
		}
		r.a.Close()
		r.a = nil
	}
}
