package lsa

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// TestReadAcrossMerge: a read that waits for a device, while the layer that it
// began on is snapshotted, loses its name and is merged into the next, is as
// right as any other.
func TestReadAcrossMerge(t *testing.T) {
	r := newRig(t, 1, 64)
	h := r.volume("v", 4<<20)
	want := make([]byte, 4<<20)
	fill(want, rand.New(rand.NewPCG(1, 1)))
	mustWrite(t, h, 0, want)

	// The first block that is read from the device stays there for a while.
	reading, release := make(chan struct{}), make(chan struct{})
	var met atomic.Bool
	hook := func(op blockdev.Op) error {
		if op.Kind == blockdev.OpTryRead {
			return blockdev.ErrWouldBlock
		}
		if op.Kind == blockdev.OpRead && op.Off >= format.SegmentsOffset && met.CompareAndSwap(false, true) {
			close(reading)
			<-release
		}
		return nil
	}
	turn := r.a.readers.turn.Load()
	r.hook.Store(&hook)
	got := make([]byte, len(want))
	done := make(chan error, 1)
	go func() { done <- h.ReadAt(got, 0) }()
	<-reading
	ctx := context.Background()
	if err := r.a.Snapshot(ctx, "v", "s"); err != nil {
		t.Fatal(err)
	}
	if err := r.a.DeleteVolume(ctx, "v@s"); err != nil {
		t.Fatal(err)
	}
	// The layer is merged, or that waits for the read, maybe behind a checkpoint.
	var tidying sync.WaitGroup
	defer tidying.Wait() // it uses the array
	tidying.Go(func() { _ = r.a.tidyLayers() })
	for r.mergedLayers() == 0 && r.a.readers.turn.Load() == turn {
		time.Sleep(time.Millisecond)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("the read has wrong bytes")
	}
}

// TestExtentsAcrossMerge: what is told of a volume while its layers are merged
// is right, and a caller that takes its time keeps nobody waiting.
func TestExtentsAcrossMerge(t *testing.T) {
	r := newRig(t, 1, 64)
	h := r.volume("v", 4<<30)
	const apart = 1 << 30
	for i := range int64(4) {
		mustWrite(t, h, i*apart, make([]byte, 4096))
	}
	ctx := context.Background()
	var data, told int64
	err := h.Extents(0, h.Size(), func(n int64, hole, zero bool) bool {
		if told == 0 {
			if err := r.a.Snapshot(ctx, "v", "s"); err != nil {
				t.Fatal(err)
			}
			if err := r.a.DeleteVolume(ctx, "v@s"); err != nil {
				t.Fatal(err)
			}
			if err := r.a.tidyLayers(); err != nil {
				t.Fatal(err)
			}
			if r.mergedLayers() == 0 {
				t.Error("no layer was merged")
			}
		}
		told += n
		if !hole {
			data += n
		}
		return true
	})
	if err != nil || told != h.Size() || data != 4*4096 {
		t.Fatalf("%d bytes of data in %d, want %d in %d: %v", data, told, 4*4096, h.Size(), err)
	}
}

// TestPagesBesideMerge: no page of the map is passed over because it goes from
// one layer to the next just then.
func TestPagesBesideMerge(t *testing.T) {
	r := newRig(t, 1, 64)
	r.opts.CheckpointBytes, r.opts.MapCache = 1<<30, 64<<20
	r.reopen()
	const pages, apart = 400, 4 << 20
	h := r.volume("v", pages*apart)
	block := make([]byte, 4096)
	ctx := context.Background()
	rounds := 20
	if os.Getenv("LSAD_TEST") == "full" {
		rounds = 200
	}
	for range rounds {
		for i := range int64(pages) { // in the layer that is to be merged, and not in the store yet
			mustWrite(t, h, i*apart, block)
		}
		if err := r.a.Snapshot(ctx, "v", "s"); err != nil {
			t.Fatal(err)
		}
		var merging sync.WaitGroup
		merging.Go(func() {
			if err := r.a.DeleteVolume(ctx, "v@s"); err != nil {
				t.Error(err)
			}
			if err := r.a.tidyLayers(); err != nil {
				t.Error(err)
			}
		})
		var done atomic.Bool
		go func() { merging.Wait(); done.Store(true) }()
		for !done.Load() {
			data := int64(0)
			err := h.Extents(0, h.Size(), func(n int64, hole, zero bool) bool {
				if !hole {
					data += n
				}
				return true
			})
			if err != nil || data != pages*4096 {
				t.Fatalf("%d blocks of data, want %d: %v", data/4096, pages, err)
			}
		}
	}
}

// mergedLayers counts the layers that were given to others.
func (r *rig) mergedLayers() (n int) {
	for _, l := range r.a.blocks.Layers.All() {
		if l.Merged {
			n++
		}
	}
	return n
}
