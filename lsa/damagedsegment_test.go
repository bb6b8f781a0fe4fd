package lsa

import (
	"context"
	"testing"
)

// TestDamagedSegmentFreed: a segment with a live block that cannot be read stays
// until that block is overwritten; then it is used again.
func TestDamagedSegmentFreed(t *testing.T) {
	b := newBadRig(t, 1)
	var seg uint32
	b.sectors(func(s uint32, _, _, live int64) { seg, b.bad = s, map[int64]bool{live: true} })
	s := &b.a.devs()[0].segs[seg]
	if _, err := b.a.Collect(context.Background(), 0, seg, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.a.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.live.Load() != 1 || !s.damaged || s.state != segSealed {
		t.Fatalf("%d live blocks, damaged %v, %v", s.live.Load(), s.damaged, s.state)
	}
	if err := b.a.DeleteVolume(context.Background(), "v@s"); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, b.h, 0, b.data)
	if err := b.a.tidyLayers(); err != nil {
		t.Fatal(err)
	}
	if err := b.a.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.live.Load() != 0 || s.damaged || s.state == segSealed {
		t.Fatalf("%d live blocks, damaged %v, %v", s.live.Load(), s.damaged, s.state)
	}
	b.bad = map[int64]bool{}
	b.expect("overwritten", b.h, b.data)
}
