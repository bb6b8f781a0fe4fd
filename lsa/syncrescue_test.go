package lsa

import (
	"errors"
	"testing"
	"time"

	"lsad/internal/blockdev"
)

// TestSyncBesideRescue: a sync that ends well after the records of its device were
// saved elsewhere, since a write to it failed meanwhile, does not undo that.
func TestSyncBesideRescue(t *testing.T) {
	r := newRig(t, 2, 32)
	h := r.volume("v", 1<<20)
	bad := r.a.devs()[1]
	toBad := func() {
		for n := bad.appended.Load(); bad.appended.Load() == n; {
			r.a.append.mu.Lock()
			r.a.append.stretch = 0
			r.a.append.mu.Unlock()
			mustWrite(t, h, 0, make([]byte, 4096))
		}
	}
	toBad()
	syncing, release := make(chan struct{}), make(chan struct{})
	hook := func(op blockdev.Op) error {
		if op.Kind == blockdev.OpSync && op.Device == r.mems[1] {
			close(syncing)
			<-release
		}
		return nil
	}
	r.hook.Store(&hook)
	flushed := make(chan error, 1)
	go func() { flushed <- h.Flush() }()
	<-syncing
	toBad()
	r.a.takeOutOfService(bad, errDead)
	for bad.appended.Load() != bad.synced.Load() {
		time.Sleep(time.Millisecond)
	}
	close(release)
	<-flushed
	var err error
	for range 100 {
		if err = h.Flush(); !errors.Is(err, ErrFailed) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal("flushes go on failing: ", err)
	}
}
