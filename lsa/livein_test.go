package lsa

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"lsad/lsa/format"
)

// TestLiveByMap: the map and sound headers say the same of a segment.
func TestLiveByMap(t *testing.T) {
	b := newBadRig(t, 2)
	byPlace := func(x, y liveBlock) int { return cmp.Compare(x.place, y.place) }
	b.sectors(func(seg uint32, _, _, _ int64) {
		d := b.a.devs()[0]
		want, skipped, err := b.a.liveByHeaders(d, seg)
		if err != nil || skipped {
			t.Fatalf("segment %d: skipped %v, %v", seg, skipped, err)
		}
		for _, known := range []int{0, 1, len(want) / 2, len(want)} {
			got, err := b.a.liveByMap(context.Background(), d, seg, slices.Clone(want[:known]), len(want)+1)
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(got, byPlace)
			slices.SortFunc(want, byPlace)
			if !slices.Equal(got, want) {
				t.Fatalf("segment %d, %d known: %d blocks by the map, %d by the headers", seg, known, len(got), len(want))
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := b.a.liveByMap(ctx, d, seg, nil, len(want)); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled: %v", err)
		}
	})
}

// TestCollectBadHeadersBesideWriters: while segments without a sound header are
// collected clients overwrite, and snapshots come and go.
func TestCollectBadHeadersBesideWriters(t *testing.T) {
	b := newBadRig(t, 1)
	ctx := context.Background()
	var segs []uint32
	b.sectors(func(seg uint32, _, _, _ int64) {
		segs = append(segs, seg)
		d := b.a.devs()[0]
		_, err := b.a.eachHeader(d, seg, d.segs[seg].used, d.segs[seg].generation, func(h *format.RecordHeader, _ []byte) error {
			b.mems[0].Corrupt(d.offset(seg, h.Sector)+20, []byte{1})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	done := make(chan error, 1)
	go func() {
		var all []error
		for _, seg := range segs {
			_, err := b.a.Collect(ctx, 0, seg, nil)
			all = append(all, err)
		}
		done <- errors.Join(all...)
	}()
	rng := rand.New(rand.NewPCG(9, 9))
	for busy := true; busy; {
		off := rng.IntN(len(b.data)/format.BlockSize) * format.BlockSize
		fill(b.data[off:][:format.BlockSize], rng)
		mustWrite(t, b.h, int64(off), b.data[off:][:format.BlockSize])
		if err := errors.Join(b.a.Snapshot(ctx, "v", "t"), b.a.DeleteVolume(ctx, "v@t"), b.a.tidyLayers()); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			busy = false
		default:
		}
	}
	for _, seg := range segs { // what went to a new layer while it was searched is for the next time
		if b.a.devs()[0].segs[seg].live.Load() > 0 {
			if _, err := b.a.Collect(ctx, 0, seg, nil); err != nil {
				t.Fatal(err)
			}
		}
		if live := b.a.devs()[0].segs[seg].live.Load(); live != 0 {
			t.Fatalf("%d blocks are left in segment %d", live, seg)
		}
	}
	b.verify("collected")
	b.crash(rng)
	b.h = b.handle("v")
	if err := b.a.VerifyBooks(); err != nil {
		t.Fatal(err)
	}
}
