package lsa

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"lsad/lsa/format"
)

// TestRoomForRescue: while the records of a device that failed are not saved yet, the
// room that is kept for them is nobody else's, though one device alone is left. After a
// crash just then the array opens, and saves them.
func TestRoomForRescue(t *testing.T) {
	for _, crash := range []bool{false, true} {
		rng := rand.New(rand.NewPCG(2, 8))
		r := newRig(t, 2, 24)
		r.opts.CheckpointBytes = 1 << 30
		r.reopen()
		h := r.volume("v", 16<<20)
		data := make([]byte, 16<<20)
		const piece = 64 << 10
		put := func(off int) {
			fill(data[off:off+piece], rng)
			mustWrite(t, h, int64(off), data[off:off+piece])
		}
		for off := 0; off < 5<<19; off += piece {
			put(off)
		}
		if err := h.Flush(); err != nil {
			t.Fatal(err)
		}
		bad := r.a.devs()[1]
		r.a.checkpoint.mu.Lock() // nothing is saved while it is held
		for i := 0; bad.unsyncedSectors.Load()*format.SectorSize < rigSegment; i++ {
			r.a.append.mu.Lock()
			r.a.append.stretch = 0 // so that the next write goes to another device
			r.a.append.mu.Unlock()
			put(i % 32 * piece)
		}
		r.a.takeOutOfService(bad, errDead)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			collectOn(r.a)
		}()
		waits := false
		for begin := time.Now(); !waits && time.Since(begin) < 9*time.Second; time.Sleep(time.Millisecond) {
			waits = r.a.append.full.Load()
		}
		r.a.checkpoint.mu.Unlock()
		if !waits {
			t.Fatal("no collection waits for room")
		}
		if crash {
			r.kill(rng)
			h = r.handle("v")
		}
		bad = r.a.devs()[1]
		for begin := time.Now(); bad.appended.Load() != bad.synced.Load(); time.Sleep(time.Millisecond) {
			if time.Since(begin) > 20*time.Second {
				t.Fatal("not all records are saved")
			}
		}
		if err := r.a.Checkpoint(context.Background()); err != nil {
			t.Fatal(err)
		}
		r.expect("saved", h, data)
		r.a.Close()
		<-ended
	}
}

// collectOn collects sealed segments, one after the other, until one finds no room,
// or there are none.
func collectOn(a *Array) {
	for {
		n := 0
		for slot := range a.devs() {
			var victims []uint32
			a.Segments(slot, func(s SegmentInfo) bool {
				if s.State == "sealed" && s.Live > 0 {
					victims = append(victims, s.Segment)
				}
				return true
			})
			n += len(victims)
			for _, seg := range victims {
				if _, err := a.Collect(context.Background(), slot, seg, nil); err != nil {
					return
				}
			}
		}
		if n == 0 {
			return
		}
	}
}
