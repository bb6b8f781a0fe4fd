package lsa

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// TestFlushWaitsUntilRemembered: where a device fails to take a superblock while
// another is added, no flush succeeds before the others know of it.
func TestFlushWaitsUntilRemembered(t *testing.T) {
	r := newRig(t, 2, 32)
	h := r.volume("v", 1<<20)
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	again, release := make(chan struct{}), make(chan struct{})
	var writes atomic.Int32
	hook := func(op blockdev.Op) error {
		switch {
		case op.Kind != blockdev.OpWrite || op.Off >= format.SegmentsOffset:
		case op.Device == r.mems[1]:
			return errDead
		case op.Device == r.mems[0] && writes.Add(1) == 3: // both copies are written once before
			close(again)
			<-release
		}
		return nil
	}
	for good := r.a.devs()[0]; good.appended.Load() == good.synced.Load(); {
		r.a.append.mu.Lock()
		r.a.append.stretch = 0
		r.a.append.mu.Unlock()
		if err := h.Flush(); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, h, 0, make([]byte, 4096))
	}
	r.hook.Store(&hook)
	added := make(chan error, 1)
	go func() {
		_, err := r.a.AddDevice(context.Background(), blockdev.NewMem("new", format.SegmentsOffset+32*rigSegment), nil)
		added <- err
	}()
	<-again
	flushed := make(chan error, 1)
	go func() { flushed <- h.Flush() }()
	select {
	case err := <-flushed:
		t.Error("a flush did not wait: ", err)
		flushed <- err
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-flushed; err != nil {
		t.Error(err)
	}
	if err := <-added; err != nil {
		t.Error(err)
	}
}
