package lsa

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// TestFlushBesideRescue: a flush that began before the records of a failed
// device were saved on another, and looks at the failed one afterwards, has the
// other one synced too.
func TestFlushBesideRescue(t *testing.T) {
	r := newRig(t, 2, 32)
	h := r.volume("v", 1<<20)
	good, bad := r.a.devs()[0], r.a.devs()[1]
	for bad.appended.Load() == bad.synced.Load() { // until one lies there, unsynced
		if err := h.Flush(); err != nil {
			t.Fatal(err)
		}
		r.a.append.mu.Lock()
		r.a.append.stretch = 0 // another device's turn
		r.a.append.mu.Unlock()
		mustWrite(t, h, 0, make([]byte, 4096))
	}
	// Superblocks are written twice: that the device is out of service is recorded
	// by the rescue, and by the flush. The first waits until the flush has
	// looked at the good device, the second until the records are saved.
	first, second := make(chan struct{}), make(chan struct{})
	var n atomic.Int32
	hook := func(op blockdev.Op) error {
		if op.Kind == blockdev.OpWrite && op.Device == r.mems[0] && op.Off < format.SegmentsOffset {
			switch n.Add(1) {
			case 1:
				<-first
			case 3:
				<-second
			}
		}
		return nil
	}
	r.hook.Store(&hook)
	r.a.takeOutOfService(bad, errDead)
	for n.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	flushed := make(chan error, 1)
	go func() { flushed <- h.Flush() }()
	time.Sleep(20 * time.Millisecond) // it waits for the superblocks; where it does not yet, this tests nothing
	close(first)
	for bad.appended.Load() != bad.synced.Load() {
		time.Sleep(time.Millisecond)
	}
	close(second)
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
	if good.appended.Load() != good.synced.Load() {
		t.Fatal("a flush succeeded, and records that it covers are not synced")
	}
}

// TestFlushWithOtherCopy: a sync that fails is an error to no flush where all
// that it should have covered has another copy; what is flushed then survives.
func TestFlushWithOtherCopy(t *testing.T) {
	for slot := range 2 {
		r, h, data, rng := newPair(t, 2)
		hook := func(op blockdev.Op) error {
			if op.Kind == blockdev.OpSync && op.Device == r.mems[slot] {
				return errDead
			}
			return nil
		}
		r.hook.Store(&hook)
		fill(data[:64<<10], rng)
		mustWrite(t, h, 0, data[:64<<10])
		if err := h.Flush(); err != nil {
			t.Fatalf("device %d: %v", slot, err)
		}
		if s := r.a.Devices()[slot].State; s != "read-only" {
			t.Errorf("device %d is %s", slot, s)
		}
		r.hook.Store(nil)
		r.crash(rng)
		if s := r.a.Devices()[slot].State; s != "read-only" {
			t.Errorf("device %d is %s after a loss of power", slot, s)
		}
		r.expect("after a loss of power", r.handle("v"), data)
	}
}

// TestFlushWithoutOtherCopy: where a record has one copy only, the flush fails.
func TestFlushWithoutOtherCopy(t *testing.T) {
	for range 20 {
		if flushFails(t) {
			return
		}
	}
	t.Fatal("a checkpoint was always there first")
}

// flushFails says whether the flush met the device that fails; a checkpoint that
// ran beside it may have taken it out of service before, and saved everything.
func flushFails(t *testing.T) bool {
	r := newRig(t, 2, 48)
	h := r.volume("v", 1<<20)
	bad := r.a.devs()[1]
	hook := func(op blockdev.Op) error {
		if op.Kind == blockdev.OpSync && op.Device == r.mems[1] {
			return errDead
		}
		return nil
	}
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	r.hook.Store(&hook)
	for bad.writable.Load() && bad.appended.Load() == bad.synced.Load() {
		mustWrite(t, h, 0, make([]byte, 4096))
		r.a.append.mu.Lock()
		r.a.append.stretch = 0
		r.a.append.mu.Unlock()
	}
	// Nothing takes the device out of service while no checkpoint can begin.
	r.a.checkpoint.mu.Lock()
	defer r.a.checkpoint.mu.Unlock()
	if !bad.writable.Load() {
		return false
	}
	if err := h.Flush(); !errors.Is(err, ErrFailed) {
		t.Fatal("a flush after a sync that failed: ", err)
	}
	return true
}
