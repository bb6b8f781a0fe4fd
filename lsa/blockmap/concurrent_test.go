package blockmap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"lsad/lsa/format"
)

// TestReadersDuringChanges reads sealed layers from several goroutines while
// the map changes, merges and makes checkpoints under next to no cache. What
// a sealed layer shows never changes, but for the places of moved blocks.
func TestReadersDuringChanges(t *testing.T) {
	for _, budget := range []int64{1, 300 << 10} {
		t.Run(fmt.Sprint(budget, " bytes"), func(t *testing.T) {
			r := newRunner(t, 7, budget)
			for range 30 {
				r.write()
			}
			r.add(1)
			sealed, want := r.want.layers()[:1], r.want.clone()
			for range 3 { // clones with something of their own
				r.add(1)
				head := r.nextID - 1
				for range 20 {
					r.write()
				}
				r.add(head)
				sealed = append(sealed, head)
				want = r.want.clone()
			}
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for i := range 3 {
				wg.Go(func() { readSealed(t, r.m, want, sealed, rand.New(rand.NewPCG(uint64(i), 1)), stop) })
			}
			for range 80 {
				switch r.rng.IntN(4) {
				case 0:
					r.write()
				case 1:
					r.move()
				case 2:
					r.unmap()
				default:
					r.checkpoint()
				}
			}
			close(stop)
			wg.Wait()
			r.check("at the end")
		})
	}
}

func readSealed(t *testing.T, m *Map, want *tree, sealed []uint64, rng *rand.Rand, stop chan struct{}) {
	entries := make([]Entry, 300)
	for {
		select {
		case <-stop:
			return
		default:
		}
		layer := sealed[rng.IntN(len(sealed))]
		block := rng.Uint64N(testPages*PageBlocks - uint64(len(entries)))
		if rng.IntN(2) == 0 || !m.TryLookup(layer, block, entries) {
			if err := m.Lookup(layer, block, entries); err != nil {
				t.Error(err)
				return
			}
		}
		for i := range entries {
			got, should := entries[i], want.sees(layer, block+uint64(i))
			if got.Kind == KindHole {
				got.Kind, got.LSN = KindNone, 0
			}
			if got.Kind != should.Kind || got.LSN != should.LSN || got.CRC != should.CRC {
				t.Errorf("layer %d block %d is %+v, want %+v", layer, block+uint64(i), got, should)
				return
			}
		}
	}
}

// TestDamagedPageIsAnError for everybody who wants it, each time, and no pin
// is left behind or taken from another.
func TestDamagedPageIsAnError(t *testing.T) {
	r := newRunner(t, 1, 1<<20)
	k := Key{1, 3}
	if err := r.db.Set(PageKey(k), []byte{99}, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if err := r.m.Pin(k); !errors.Is(err, format.ErrInvalid) {
					t.Errorf("pinned a damaged page: %v", err)
				}
			}
		})
	}
	wg.Wait()
	err := r.m.Lookup(1, 3*PageBlocks, make([]Entry, 1))
	if !errors.Is(err, format.ErrInvalid) {
		t.Fatalf("looked up a damaged page: %v", err)
	}
	if st := r.m.Stats(); st.Bytes != 0 {
		t.Fatalf("%+v: something stays in the cache", st)
	}
	if err := r.db.Delete(PageKey(k), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	r.check("mended")
}

func TestCheckLayers(t *testing.T) {
	good := []Layer{{ID: 1}, {ID: 2, Parent: 1}, {ID: 3, Parent: 1}, {ID: 4, MergeInto: 3, Merged: true}, {ID: 5, MergeInto: 99, Merged: true}, {ID: 6, Parent: 3, MergeInto: 2}}
	if err := CheckLayers(good); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]Layer{
		"layer 0":            {{ID: 0}},
		"twice":              {{ID: 1}, {ID: 1}},
		"no parent":          {{ID: 1, Parent: 2}},
		"merged parent":      {{ID: 1, Parent: 2}, {ID: 2, Merged: true}},
		"merged with parent": {{ID: 1}, {ID: 2, Parent: 1, Merged: true}},
		"its own parent":     {{ID: 1, Parent: 1}},
		"circle":             {{ID: 1, Parent: 3}, {ID: 2, Parent: 1}, {ID: 3, Parent: 2}},
		"beside a circle":    {{ID: 4, Parent: 1}, {ID: 1, Parent: 2}, {ID: 2, Parent: 1}},
		"merged into itself": {{ID: 1, MergeInto: 1, Merged: true}},
		"merged in a circle": {{ID: 1, MergeInto: 2, Merged: true}, {ID: 2, MergeInto: 1, Merged: true}},
	} {
		if err := CheckLayers(bad); !errors.Is(err, format.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
