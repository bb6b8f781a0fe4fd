package lsa

import (
	"sync/atomic"
	"testing"
	"time"

	"lsad/internal/blockdev"
)

// TestDiscardFails: segments behind one that cannot be discarded can be used all
// the same, and other devices are not passed over.
func TestDiscardFails(t *testing.T) {
	r := newRig(t, 2, 32)
	tried := map[*blockdev.Mem]bool{}
	r.a.stop() // its own turns would take part
	hook := func(op blockdev.Op) error {
		if op.Kind == blockdev.OpDiscard {
			tried[op.Device] = true
			return errDead
		}
		return nil
	}
	r.hook.Store(&hook)
	for _, d := range r.a.devs() {
		for i := range d.segs {
			d.segs[i].stale = d.segs[i].state == segFree
		}
	}
	r.a.discardCold(time.Now())
	for _, d := range r.a.devs() {
		if !tried[r.mems[d.slot]] {
			t.Errorf("nothing of device %d was discarded", d.slot)
		}
		for i := range d.segs {
			if d.segs[i].discarding {
				t.Fatalf("segment %d of device %d is kept from use", i, d.slot)
			}
		}
	}
	r.hook.Store(nil)
}

// TestMuchIsGivenBack: a device that the file system below had no room for once
// does not keep what it has for ever when nearly all of it is unused.
func TestMuchIsGivenBack(t *testing.T) {
	r := newRig(t, 1, 64)
	r.a.stop() // its own turns would take part
	var discarded atomic.Int32
	hook := func(op blockdev.Op) error {
		if op.Kind == blockdev.OpDiscard {
			discarded.Add(1)
		}
		return nil
	}
	r.hook.Store(&hook)
	defer r.hook.Store(nil)
	d := r.a.devs()[0]
	freed := func(n int) { // so many segments, long ago
		d.warm = 0
		for i := range d.segs {
			s := &d.segs[i]
			if s.state == segFree {
				s.stale = false
				if s.allocated = d.warm < n; s.allocated {
					d.warm++
				}
			}
		}
		d.hostFull = true
	}
	later := time.Now().Add(time.Hour)
	few := r.a.window(d)
	freed(few)
	if r.a.discardCold(later); discarded.Load() > 0 || !d.hostFull {
		t.Errorf("%d segments were given to others while the file system below is full, %d of %d", discarded.Load(), few, len(d.segs))
	}
	freed(few + 1)
	if r.a.discardCold(later); int(discarded.Load()) != few+1 || d.hostFull {
		t.Errorf("%d of %d unused segments were given back, full: %v", discarded.Load(), few+1, d.hostFull)
	}
}

// TestDiscardedOnce: a segment that is being given back is nobody else's to give back. Whoever came second would do it
// when the segment may be in use again, with data in it.
func TestDiscardedOnce(t *testing.T) {
	r := newRig(t, 1, 32)
	r.a.stop() // its own turns would take part
	d := r.a.devs()[0]
	for i := range d.segs {
		d.segs[i].stale = d.segs[i].state == segFree
	}
	if n := len(r.a.staleSegments(d)); n == 0 {
		t.Fatal("nothing is stale")
	}
	if segs := r.a.coldSegments(d, time.Now().Add(time.Hour)); len(segs) > 0 {
		t.Errorf("%d segments are given back twice", len(segs))
	}
	if segs := r.a.staleSegments(d); len(segs) > 0 {
		t.Errorf("%d segments are given back twice", len(segs))
	}
}
