package lsa

import (
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
