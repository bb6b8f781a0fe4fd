package lsa

import (
	"context"
	"errors"
	"testing"

	"lsad/lsa/blockmap"
)

// TestWalkBesideMerge: a walk misses nothing that goes from a layer to its child while it runs.
func TestWalkBesideMerge(t *testing.T) {
	r, h, data, _ := newPair(t, 2)
	for _, name := range []string{"s", "s2"} {
		if err := r.a.Snapshot(context.Background(), "v", name); err != nil {
			t.Fatal(err)
		}
		if err := write(h, 0, data[:64<<10]); err != nil {
			t.Fatal(err)
		}
	}
	for _, drop := range []string{"", "v@s", "v@s2"} {
		seen := map[uint64]bool{}
		w := &walk{a: r.a, ctx: context.Background(), status: &r.a.rebuild}
		err := w.run(r.a.layersOfTwo, func(layer, page uint64, entries []blockmap.Entry) error {
			if len(seen) == 0 && drop != "" {
				if err := r.a.DeleteVolume(context.Background(), drop); err != nil {
					return err
				}
				if err := r.a.tidyLayers(); err != nil {
					return err
				}
			}
			for _, e := range entries {
				seen[page*blockmap.PageBlocks+uint64(e.Off)] = true
			}
			return nil
		})
		if want := len(data) / 4096; err != nil || len(seen) != want {
			t.Errorf("beside the deletion of %q it saw %d blocks of %d, and %v", drop, len(seen), want, err)
		}
	}
}

// TestWalkBesideSnapshot: nor what goes to a layer that is younger than the walk.
func TestWalkBesideSnapshot(t *testing.T) {
	r, _, data, _ := newPair(t, 2)
	ctx := context.Background()
	const far = 3 * blockmap.PageBlocks * 4096 // so that it has pages, and one of them is seen before
	r.copies = 2
	h := r.volume("far", far+int64(len(data)))
	for _, off := range []int64{0, far} {
		if err := write(h, off, data[:64<<10]); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[uint64]bool{}
	w := &walk{a: r.a, ctx: ctx, status: &r.a.rebuild}
	such := func() []uint64 { return r.a.layersUnder(func(v *volume) bool { return v.Name == "far" }) }
	err := w.run(such, func(layer, page uint64, entries []blockmap.Entry) error {
		if len(seen) == 0 {
			if err := errors.Join(r.a.Snapshot(ctx, "far", "s"), r.a.DeleteVolume(ctx, "far@s"), r.a.tidyLayers()); err != nil {
				return err
			}
		}
		for _, e := range entries {
			seen[page*blockmap.PageBlocks+uint64(e.Off)] = true
		}
		return nil
	})
	if err != nil || len(seen) != 32 {
		t.Errorf("it saw %d blocks of 32, and %v", len(seen), err)
	}
}
