package lsa

import (
	"context"
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
		err := w.run(r.a.layersOfTwo(), func(layer, page uint64, entries []blockmap.Entry) error {
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
