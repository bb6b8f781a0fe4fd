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
		r, h, data, rng := unsyncedOnBoth(t)
		bad := r.a.devs()[1]
		r.a.checkpoint.mu.Lock() // nothing is saved while it is held
		fillUnsynced(r, h, data, rng, bad)
		r.a.takeOutOfService(bad, errDead)
		ended := collectUntilFull(r)
		r.a.checkpoint.mu.Unlock()
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

// TestRoomForRescueOfLeaving: a device that is being removed may fail as well, before what it
// took last is synced. The one that is left has room for that until it is.
func TestRoomForRescueOfLeaving(t *testing.T) {
	r, h, data, rng := unsyncedOnBoth(t)
	leaving := r.a.devs()[1]
	fillUnsynced(r, h, data, rng, leaving)
	r.a.checkpoint.mu.Lock() // nothing is saved and no segment freed while it is held
	if !r.a.flush.begin() {  // nor anything synced
		t.Fatal("a sync is under way")
	}
	if err := r.a.beginRemoval(leaving); err != nil {
		t.Fatal(err)
	}
	ended := collectUntilFull(r) // takes all that it may have
	r.a.takeOutOfService(leaving, errDead)
	r.a.flush.end()
	r.a.checkpoint.mu.Unlock()
	for begin := time.Now(); leaving.appended.Load() != leaving.synced.Load(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("not all records are saved")
		}
	}
	if n := r.a.keptForRescue(); n != 0 {
		t.Errorf("%d segments are kept when all is saved", n)
	}
	r.expect("saved", h, data)
	r.a.Close()
	<-ended
}

// unsyncedOnBoth is an array of two devices with a volume, without checkpoints on their own.
func unsyncedOnBoth(t *testing.T) (r *rig, h *Handle, data []byte, rng *rand.Rand) {
	rng = rand.New(rand.NewPCG(2, 8))
	r = newRig(t, 2, 24)
	r.opts.CheckpointBytes = 1 << 30
	r.reopen()
	h = r.volume("v", 16<<20)
	data = make([]byte, 16<<20)
	for off := 0; off < 5<<19; off += rescuePiece {
		putPiece(t, h, data, rng, off)
	}
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	return r, h, data, rng
}

const rescuePiece = 64 << 10

func putPiece(t testing.TB, h *Handle, data []byte, rng *rand.Rand, off int) {
	t.Helper()
	fill(data[off:off+rescuePiece], rng)
	mustWrite(t, h, int64(off), data[off:off+rescuePiece])
}

// fillUnsynced writes until a device has a segment's worth that no sync covers.
func fillUnsynced(r *rig, h *Handle, data []byte, rng *rand.Rand, d *device) {
	for i := 0; d.unsyncedSectors.Load()*format.SectorSize < rigSegment; i++ {
		r.a.append.mu.Lock()
		r.a.append.stretch = 0 // so that the next write goes to another device
		r.a.append.mu.Unlock()
		putPiece(r.t, h, data, rng, i%32*rescuePiece)
	}
}

// collectUntilFull collects until that waits for room. The channel is closed when nothing collects any more.
func collectUntilFull(r *rig) <-chan struct{} {
	r.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		collectOn(r.a)
	}()
	for begin := time.Now(); !r.a.append.full.Load(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 9*time.Second {
			r.t.Fatal("no collection waits for room")
		}
	}
	return ended
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
