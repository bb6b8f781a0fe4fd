package lsa

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"lsad/lsa/blockmap"
)

const viewsSnapshots = 12

// manySnapshots makes a volume with snapshots, and something new under each. It returns
// what the volume, by "v", and the snapshots, by "v@sN", hold.
func (r *rig) manySnapshots(rng *rand.Rand) map[string][]byte {
	r.t.Helper()
	const size = 6 << 20
	h := r.volume("v", size)
	now := make([]byte, size)
	fill(now, rng)
	mustWrite(r.t, h, 0, now)
	want := map[string][]byte{}
	for i := range viewsSnapshots {
		name := fmt.Sprintf("s%d", i)
		if err := r.a.Snapshot(context.Background(), "v", name); err != nil {
			r.t.Fatal(err)
		}
		want["v@"+name] = bytes.Clone(now)
		for range 8 {
			off := rng.IntN(size/4096) * 4096
			fill(now[off:off+4096], rng)
			mustWrite(r.t, h, int64(off), now[off:off+4096])
		}
	}
	want["v"] = now
	return want
}

// readAll reads everything, the volume before its snapshots, and returns how many views were used.
func (r *rig) readAll(when string, want map[string][]byte) int64 {
	r.t.Helper()
	before := r.a.blocks.Stats()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		h, err := r.a.OpenVolume(name, OpenOptions{ReadOnly: true})
		if err != nil {
			r.t.Fatal(err)
		}
		got := make([]byte, len(want[name]))
		if err := h.ReadAt(got, 0); err != nil || !bytes.Equal(got, want[name]) {
			r.t.Fatalf("%s: %s has other bytes, or %v", when, name, err)
		}
		h.Close()
	}
	if err := r.a.VerifyBooks(); err != nil {
		r.t.Fatalf("%s: %v", when, err)
	}
	return r.a.blocks.Stats().ViewsUsed - before.ViewsUsed
}

// viewRows counts the kept views in the store.
func (r *rig) viewRows() (n int) {
	r.t.Helper()
	if err := eachRow(r.a.db, 'r', func(key, value []byte) error { n++; return nil }); err != nil {
		r.t.Fatal(err)
	}
	return n
}

func (r *rig) mustCheckpoint() {
	r.t.Helper()
	if err := r.a.Checkpoint(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

// TestViewsOfManySnapshots: reads of a volume with many snapshots keep views, which
// later ones use. Where collections move what they show they are not believed
// any more, also behind a crash. Of layers that are gone none are left.
func TestViewsOfManySnapshots(t *testing.T) {
	for _, copies := range []int{2, 1}[:max(1, 3-underRace)] {
		t.Run(fmt.Sprint(copies, " copies"), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, uint64(copies)))
			r := newRig(t, 3, 100)
			r.copies = copies
			r.opts.MapCache = 1 // nothing stays that is not needed
			r.reopen()
			want := r.manySnapshots(rng)
			r.reopen()
			r.readAll("first", want)
			r.mustCheckpoint()
			r.reopen()
			if r.readAll("second", want) == 0 {
				t.Fatalf("no view was used: %+v", r.a.blocks.Stats())
			}
			r.killed(rng).clean("views are kept")

			outdated := int64(0)
			for round := range 2 {
				r.collectAll()
				if round == 0 {
					r.readAll("collected", want)
					r.mustCheckpoint()
				}
				outdated += r.a.blocks.Stats().ViewsOutdated
				r.crash(rng)
				r.readAll("crashed", want)
				r.killed(rng).clean("crashed")
			}
			if outdated == 0 {
				t.Error("no view was found outdated")
			}

			for i := range viewsSnapshots - 1 {
				name := fmt.Sprintf("v@s%d", i)
				if err := r.a.DeleteVolume(context.Background(), name); err != nil {
					t.Fatal(err)
				}
				delete(want, name)
			}
			if err := r.a.tidyLayers(); err != nil {
				t.Fatal(err)
			}
			r.readAll("snapshots deleted", want)
			r.mustCheckpoint()
			r.killed(rng).clean("snapshots deleted")
			r.crash(rng)
			r.readAll("and crashed", want)
			if err := r.a.DeleteVolume(context.Background(), "v"); err != nil {
				t.Fatal(err)
			}
			if err := r.a.tidyLayers(); err != nil {
				t.Fatal(err)
			}
			r.mustCheckpoint()
			if n := r.viewRows(); n != 0 {
				t.Errorf("%d views are left of nothing", n)
			}
		})
	}
}

// TestIdleReadsKeepViews: reads alone bring about the checkpoint that stores views,
// if only by the clock.
func TestIdleReadsKeepViews(t *testing.T) {
	r := newRig(t, 2, 100)
	want := r.manySnapshots(rand.New(rand.NewPCG(4, 4)))
	r.reopen()
	if r.a.checkpointDue() {
		t.Fatal("a checkpoint is due before anything happened")
	}
	r.readAll("first", want)
	if !r.a.checkpointDue() {
		t.Fatal("views wait, and no checkpoint is due")
	}
	r.mustCheckpoint()
	if r.a.checkpointDue() || r.viewRows() == 0 {
		t.Fatalf("%d views are stored", r.viewRows())
	}
}

// TestCheckFindsWrongViews: a view that would be believed and is wrong is found,
// and so is one of a layer that is not there.
func TestCheckFindsWrongViews(t *testing.T) {
	oneByOne(t)
	r := newRig(t, 2, 100)
	want := r.manySnapshots(rand.New(rand.NewPCG(5, 5)))
	r.reopen()
	r.readAll("first", want)
	if err := r.a.Close(); err != nil {
		t.Fatal(err)
	}
	r.clean("before")
	for name, c := range map[string]struct {
		change func(db *pebble.DB, key, value []byte) error
		want   string
	}{
		"a block elsewhere": {func(db *pebble.DB, key, value []byte) error {
			value[len(value)-1] ^= 2
			return db.Set(key, value, pebble.NoSync)
		}, "not as in the layers"},
		"cut short": {func(db *pebble.DB, key, value []byte) error {
			return db.Set(key, value[:len(value)-1], pebble.NoSync)
		}, "cut short"},
		"no such layer": {func(db *pebble.DB, key, value []byte) error {
			key[1] = 1
			return db.Set(key, value, pebble.NoSync)
		}, "no such layer"},
	} {
		t.Run(name, func(t *testing.T) {
			d := (&sound{rig: r}).copy(t)
			o := Options{}
			o.fill()
			db, err := openMetastore(d.fs, "meta", false, false, o.Logger, nil)
			if err != nil {
				t.Fatal(err)
			}
			done := false
			err = eachRow(db, 'r', func(key, value []byte) error {
				if done {
					return nil
				}
				done = true
				return c.change(db, bytes.Clone(key), bytes.Clone(value))
			})
			if err != nil || !done {
				t.Fatal(done, err)
			}
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			report := d.check()
			if len(report.Problems) != 1 || !strings.Contains(report.Problems[0].String(), "kept view of page") || !strings.Contains(report.Problems[0].What, c.want) {
				t.Fatalf("%d problems: %v", len(report.Problems), report.Problems)
			}
		})
	}
}

var _ blockmap.Places = (*Array)(nil)
