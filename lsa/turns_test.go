package lsa

import (
	"context"
	"math/rand/v2"
	"testing"
)

// TestTurns holds that a volume that is reverted, or shrinks, is told from what it was, also after a restart, and
// that other changes leave it what it is.
func TestTurns(t *testing.T) {
	ctx := context.Background()
	r := newRig(t, 2, 60)
	r.volume("v", 2<<20).Close()
	var want uint64
	step := func(what string, err error, turns uint64) {
		t.Helper()
		want += turns
		if v, e := r.a.Volume("v"); err != nil || e != nil || v.Turns != want {
			t.Fatalf("%s: %d turns, want %d; %v, %v", what, v.Turns, want, err, e)
		}
	}
	step("snapshot", r.a.Snapshot(ctx, "v", "s"), 0)
	step("grown", r.a.ResizeVolume(ctx, "v", 3<<20, false), 0)
	step("reverted", r.a.Revert(ctx, "v", "s"), 1)
	r.kill(rand.New(rand.NewPCG(1, 1)))
	step("replayed", nil, 0)
	step("shrunk", r.a.ResizeVolume(ctx, "v", 1<<20, true), 1)
	r.reopen()
	step("opened", nil, 0)
	first, _ := r.a.Volume("v")
	step("snapshot deleted", r.a.DeleteVolume(ctx, "v@s"), 0)
	step("snapshot", r.a.Snapshot(ctx, "v", "s"), 0)
	if second, _ := r.a.Volume("v"); second.Snapshots[0].ID == first.Snapshots[0].ID {
		t.Error("another snapshot of the same name cannot be told from the first")
	}
}
