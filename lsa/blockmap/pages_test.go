package blockmap

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"lsad/lsa/format"
)

const (
	fresh     = 2000    // a layer without anything
	wide      = 1 << 19 // pages of 2 TiB
	perTrim   = 1023    // pages of the longest NBD request of 32 bits, less a bit
	wideTrims = (wide + perTrim - 1) / perTrim
)

// scatter writes one block in each of so many pages, all over 2 TiB of layer.
func scatter(t testing.TB, m *Map, layer uint64, pages int) {
	rng := rand.New(rand.NewPCG(4, layer))
	for i := range pages {
		writeOne(t, m, Key{layer, rng.Uint64N(wide)}, uint64(i))
	}
}

func writeOne(t testing.TB, m *Map, k Key, lsn uint64) {
	if err := m.Pin(k); err != nil {
		t.Fatal(err)
	}
	m.Write(k.Layer, k.Page*PageBlocks, 1, lsn, format.MakePlace(1, uint32(lsn), 1), 0, func(int) uint32 { return 1 })
	m.Unpin(k)
}

// save makes a checkpoint: all that is cached is clean then.
func save(t testing.TB, m *Map) {
	c, batch := m.Begin(1), m.db.NewBatch()
	if err := c.WriteTo(batch); err != nil {
		t.Fatal(err)
	}
	if err := m.db.Apply(batch, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	if err := m.db.Flush(); err != nil {
		t.Fatal(err)
	}
	c.Done()
}

// search looks for what is mapped in 2 TiB of a layer as the trims of a client
// do, and returns what it found.
func search(t testing.TB, m *Map, layer uint64) (found int) {
	for from := uint64(0); from < wide; from += perTrim {
		pages, err := m.PagesIn(layer, from, min(from+perTrim, wide), false)
		if err != nil {
			t.Fatal(err)
		}
		found += len(pages)
	}
	return found
}

type searchCase struct {
	name  string
	looks int64 // at most, in a range without anything
	make  func(t testing.TB, others int) *Map
}

// searchCases have a volume without anything in its 2 TiB, with head fresh+100,
// and others in the cache: layer 1.
func searchCases() []searchCase {
	stack := func(t testing.TB, snapshots uint64) *Map {
		layers := []Layer{{ID: 1}, {ID: fresh + 100 - snapshots}}
		for id := layers[1].ID + 1; id <= fresh+100; id++ {
			layers = append(layers, Layer{ID: id, Parent: id - 1})
		}
		return New(newStore(t), NewLayers(layers), nobody{}, 1<<30)
	}
	changed := func(t testing.TB, others int) *Map {
		m := stack(t, 0)
		scatter(t, m, 1, others)
		return m
	}
	return []searchCase{
		{"others changed", 0, changed},
		{"others clean", 0, func(t testing.TB, others int) *Map {
			m := changed(t, others)
			save(t, m)
			return m
		}},
		{"100 snapshots", 0, func(t testing.TB, others int) *Map {
			m := stack(t, 100)
			scatter(t, m, 1, others)
			save(t, m)
			return m
		}},
		// One seek, and so one row, for each layer; before the checkpoint it is
		// one word for each.
		{"100 snapshots with something elsewhere", 101 + 101, func(t testing.TB, others int) *Map {
			m := stack(t, 100)
			scatter(t, m, 1, others)
			for id := uint64(fresh); id <= fresh+100; id++ {
				writeOne(t, m, Key{id, wide + perTrim}, id)
			}
			save(t, m)
			for id := uint64(fresh); id <= fresh+100; id++ {
				writeOne(t, m, Key{id, wide + perTrim}, id)
			}
			return m
		}},
	}
}

// TestSearchCostsWhatItFinds: a search looks at what the layer and those below it
// have in the range, whatever else is cached.
func TestSearchCostsWhatItFinds(t *testing.T) {
	const others = 20_000
	for _, c := range searchCases() {
		t.Run(c.name, func(t *testing.T) {
			m := c.make(t, others)
			before := m.looked.Load()
			if n := search(t, m, fresh+100); n != 0 {
				t.Fatalf("found %d pages where there is nothing", n)
			}
			if n := m.looked.Load() - before; n > wideTrims*c.looks {
				t.Errorf("looked at %d things in %d searches of ranges without anything, want at most %d", n, wideTrims, wideTrims*c.looks)
			}
			// The volume that has something: each page once in the index and once
			// in the store, the words that they are in, and a row behind each range.
			before = m.looked.Load()
			n := search(t, m, 1)
			if most := int64(2*n + wideTrims*(perTrim/wordPages+3)); n < others*9/10 || m.looked.Load()-before > most {
				t.Errorf("looked at %d things to find %d of %d pages, want at most %d", m.looked.Load()-before, n, others, most)
			}
		})
	}
}

// TestFewPages: where all are cached the store is not asked; where not, pages
// without anything are not among those found either.
func TestFewPages(t *testing.T) {
	m := New(newStore(t), NewLayers([]Layer{{ID: 1}, {ID: 2, Parent: 1}}), nobody{}, 1<<20)
	writeOne(t, m, Key{1, 3}, 1)
	writeOne(t, m, Key{1, 70}, 1)
	for _, when := range []string{"changed", "clean"} {
		for _, cached := range []bool{false, true} {
			for _, c := range []struct {
				from, to uint64
				want     []uint64
			}{{0, 3, nil}, {3, 4, []uint64{3}}, {0, 64, []uint64{3}}, {4, 68, nil}, {7, 71, []uint64{70}}, {0, 100, []uint64{3, 70}}, {5, 5, nil}} {
				if cached && c.to-c.from <= few {
					for pg := c.from; pg < c.to; pg++ {
						if err := m.Pin(Key{2, pg}); err != nil {
							t.Fatal(err)
						}
						m.Unpin(Key{2, pg})
					}
				}
				got, err := m.PagesIn(2, c.from, c.to, false)
				if err != nil || !slices.Equal(got, c.want) {
					t.Errorf("%s, cached %v: pages %d to %d: %v, %v, want %v", when, cached, c.from, c.to, got, err, c.want)
				}
			}
		}
		save(t, m)
		m = New(m.db, m.Layers, nobody{}, 1<<20)
	}
}

// BenchmarkSearch looks for what a trim of 2 TiB has to unmap, in requests of
// 32 bits: nothing, but other volumes have 300,000 pages in the cache.
func BenchmarkSearch(b *testing.B) {
	for _, c := range searchCases() {
		b.Run(c.name, func(b *testing.B) {
			m := c.make(b, 300_000)
			b.ReportAllocs()
			before := m.looked.Load()
			for b.Loop() {
				search(b, m, fresh+100)
			}
			b.ReportMetric(float64(m.looked.Load()-before)/float64(b.N), "looks/op")
		})
	}
	b.Run("300000 pages found", func(b *testing.B) {
		m := searchCases()[0].make(b, 300_000)
		for b.Loop() {
			search(b, m, 1)
		}
	})
}
