package blockmap

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/lsa/format"
)

func newStore(t testing.TB) *pebble.DB {
	t.Helper()
	db, err := pebble.Open("map", storeOptions(vfs.NewMem()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func storeOptions(fs vfs.FS) *pebble.Options {
	o := &pebble.Options{FS: fs, DisableWAL: true, Logger: quiet{}, Merger: Merger, L0CompactionThreshold: 12, CacheSize: 16 << 20}
	for i := range o.Levels { // as the array's
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	return o
}

type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

// books count what Accounting is told.
type books struct {
	blocks map[uint64]int       // by layer
	places map[format.Place]int // that hold data
}

func newBooks() *books { return &books{map[uint64]int{}, map[format.Place]int{}} }

func (b *books) Used(layer uint64, e *Entry)  { b.count(layer, e, 1) }
func (b *books) Freed(layer uint64, e *Entry) { b.count(layer, e, -1) }

func (b *books) count(layer uint64, e *Entry, n int) {
	if e.Kind != KindData && e.Kind != KindZero {
		return
	}
	if b.blocks[layer] += n; b.blocks[layer] == 0 {
		delete(b.blocks, layer)
	}
	for _, p := range e.Place {
		if p == 0 {
			continue
		}
		if b.places[p] += n; b.places[p] == 0 {
			delete(b.places, p)
		}
	}
}

// tree is what the map should hold: for each layer its parent and its own
// entries, by block. It knows nothing of pages, caches or stores.
type tree struct {
	parent map[uint64]uint64
	own    map[uint64]map[uint64]Entry
}

func (m *tree) clone() *tree {
	c := &tree{maps.Clone(m.parent), map[uint64]map[uint64]Entry{}}
	for l, own := range m.own {
		c.own[l] = maps.Clone(own)
	}
	return c
}

func (m *tree) layers() []uint64 { return slices.Sorted(maps.Keys(m.parent)) }

func (m *tree) children(layer uint64) (all []uint64) {
	for _, l := range m.layers() {
		if m.parent[l] == layer {
			all = append(all, l)
		}
	}
	return all
}

// sees returns what a reader of the layer gets: KindNone for a hole.
func (m *tree) sees(layer, block uint64) Entry {
	for ; layer != 0; layer = m.parent[layer] {
		if e, ok := m.own[layer][block]; ok {
			if e.Kind == KindHole {
				break
			}
			return e
		}
	}
	return Entry{}
}

func (m *tree) unmap(layer, block, lsn uint64) {
	_, own := m.own[layer][block]
	switch {
	case m.parent[layer] == 0:
		delete(m.own[layer], block)
	case own || m.sees(layer, block).Kind != KindNone:
		m.own[layer][block] = Entry{LSN: lsn, Kind: KindHole}
	}
}

func (m *tree) books() *books {
	b := newBooks()
	for l, own := range m.own {
		for _, e := range own {
			b.Used(l, &e)
		}
	}
	return b
}

// checkStored: the store holds exactly what the map was when the checkpoint
// began.
func (r *runner) checkStored() {
	r.t.Helper()
	var layers []Layer
	for l, p := range r.image.parent {
		layers = append(layers, Layer{ID: l, Parent: p})
	}
	if err := CheckLayers(layers); err != nil {
		r.t.Fatal(err)
	}
	stored := New(r.db, NewLayers(layers), newBooks(), 1<<20)
	if err := stored.KeepViews(r.imageLefts, r.number, 1); err != nil {
		r.t.Fatal(err)
	}
	if len(stored.views.dropped) > 0 {
		r.t.Fatalf("views are left of layers %v", stored.views.dropped)
	}
	r.checkViews("stored", stored)
	compareMaps(r.t, "stored", stored, r.image, r.unread()...)
	found := newBooks()
	err := stored.Each(func(k Key, entries []Entry, err error) error {
		for i := range entries {
			found.Used(k.Layer, &entries[i])
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	compareBooks(r.t, "stored", found, r.image.books())
}

// check compares everything.
func (r *runner) check(when string) {
	r.t.Helper()
	compareMaps(r.t, when, r.m, r.want, r.unread()...)
	compareBooks(r.t, when, r.books, r.want.books())
	found, holes := newBooks(), map[uint64]int{}
	err := r.m.Each(func(k Key, entries []Entry, err error) error {
		for i := range entries {
			found.Used(k.Layer, &entries[i])
			if entries[i].Kind == KindHole {
				holes[k.Layer]++
			}
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	compareBooks(r.t, when+", each page", found, r.books)
	r.checkHoles(when, holes)
	r.checkViews(when, r.m)
	r.checkMemory(when)
}

// changes are those to views that the running checkpoint and the next one make.
func (r *runner) changes() []viewChanges {
	all := []viewChanges{{dropped: r.m.views.dropped, gone: r.m.views.gone}}
	if r.ckpt != nil {
		all = append(all, r.ckpt.views)
	}
	return all
}

func (r *runner) checkViews(when string, m *Map) {
	r.t.Helper()
	err := m.CheckViews(func(k Key, err error) error {
		if m == r.m && slices.ContainsFunc(r.changes(), func(c viewChanges) bool { return slices.Contains(c.dropped, k.Layer) || slices.Contains(c.gone, k) }) {
			return nil // not any more, with a checkpoint to come
		}
		return fmt.Errorf("view of page %d of layer %d: %w", k.Page, k.Layer, err)
	})
	if err != nil {
		r.t.Fatalf("%s: %v", when, err)
	}
}

// checkHoles: a layer has a hole where it hides something, and nowhere else. On
// a layer without a parent, which may have lost it, holes mean nothing.
func (r *runner) checkHoles(when string, holes map[uint64]int) {
	r.t.Helper()
	for _, layer := range r.want.layers() {
		n := 0
		for _, e := range r.want.own[layer] {
			if e.Kind == KindHole {
				n++
			}
		}
		if r.want.parent[layer] != 0 && holes[layer] != n {
			r.t.Fatalf("%s: layer %d has %d holes, want %d", when, layer, holes[layer], n)
		}
	}
}

// unread are the layers that were swept, which nobody reads: they may look as if
// what was freed hid something still.
func (r *runner) unread() []uint64 { return slices.Collect(maps.Keys(r.swept)) }

func compareBooks(t testing.TB, when string, got, want *books) {
	t.Helper()
	if !maps.Equal(got.blocks, want.blocks) {
		t.Fatalf("%s: the layers have %v blocks, want %v", when, got.blocks, want.blocks)
	}
	if !maps.Equal(got.places, want.places) {
		t.Fatalf("%s: %d places are in use, want %d", when, len(got.places), len(want.places))
	}
}

func compareMaps(t testing.TB, when string, m *Map, want *tree, except ...uint64) {
	t.Helper()
	entries := make([]Entry, testPages*PageBlocks)
	for _, layer := range want.layers() {
		if slices.Contains(except, layer) {
			continue
		}
		if err := m.Lookup(layer, 0, entries); err != nil {
			t.Fatal(err)
		}
		for b := range entries {
			got, should := entries[b], want.sees(layer, uint64(b))
			own := want.own[layer][uint64(b)].Kind
			if isOwn := own == KindData || own == KindZero; got.Own && (got.Kind == KindData || got.Kind == KindZero) != isOwn {
				t.Fatalf("%s: layer %d block %d is %+v, its own is of kind %d", when, layer, b, got, own)
			}
			if got.Off != uint16(b%PageBlocks) {
				t.Fatalf("%s: block %d has offset %d", when, b, got.Off)
			}
			if got.Kind == KindHole {
				got.Kind, got.LSN = KindNone, 0
			}
			got.Own, got.Off = false, 0
			if got != should {
				t.Fatalf("%s: layer %d block %d is %+v, want %+v", when, layer, b, got, should)
			}
		}
		comparePages(t, when, m, layer, want)
	}
}

// comparePages: PagesIn misses no page in which there is something.
func comparePages(t testing.TB, when string, m *Map, layer uint64, want *tree) {
	t.Helper()
	for _, own := range []bool{false, true} {
		has := map[uint64]bool{}
		for l := layer; l != 0 && (l == layer || !own); l = want.parent[l] {
			for b := range want.own[l] {
				// Own holes count too, but those of a layer that lost its parent
				// may be gone. A reader has no use for pages of holes.
				counts := want.own[l][b].Kind != KindHole || want.parent[l] != 0
				if !own {
					counts = want.sees(layer, b).Kind != KindNone
				}
				if counts {
					has[b/PageBlocks] = true
				}
			}
		}
		for _, r := range [][2]uint64{{0, 1 << 40}, {0, 100}, {0, testPages}, {2, 4}, {3, 4}, {1, 80}} {
			pages, err := m.PagesIn(layer, r[0], r[1], own)
			if err != nil {
				t.Fatal(err)
			}
			for pg := range has {
				if _, ok := slices.BinarySearch(pages, pg); !ok && pg >= r[0] && pg < r[1] {
					t.Fatalf("%s: page %d of layer %d is missing from %v", when, pg, layer, pages)
				}
			}
			for _, pg := range pages {
				if pg < r[0] || pg >= r[1] {
					t.Fatalf("%s: page %d of layer %d is not in [%d, %d)", when, pg, layer, r[0], r[1])
				}
			}
		}
	}
}

// TestReadDuringMerge: half-way through a merge readers of the layers above find
// what lies below both, whichever pages are in the cache.
func TestReadDuringMerge(t *testing.T) {
	for evict := range 8 {
		r := newRunner(t, 1, 1<<20)
		for range 3 { // 1 <- 2 <- 3 <- 4
			r.add(r.nextID - 1)
		}
		for layer := uint64(1); layer < 4; layer++ {
			unpin := r.pin(0, layer)
			r.m.Write(layer, layer, 1, layer, format.MakePlace(1, uint32(layer), 1), 0, func(int) uint32 { return 7 })
			unpin()
			r.want.own[layer][layer] = Entry{LSN: layer, Kind: KindData, CRC: 7, Place: [2]format.Place{format.MakePlace(1, uint32(layer), 1)}}
		}
		unpin := r.pin(0, 2, 3)
		r.m.MergePage(2, 3, 0)
		unpin()
		r.want.own[3][2], r.want.own[2] = r.want.own[2][2], map[uint64]Entry{}
		c := r.m.Begin(1)
		batch := r.db.NewBatch()
		if err := c.WriteTo(batch); err != nil {
			t.Fatal(err)
		}
		if err := r.db.Apply(batch, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		c.Done()
		for layer := uint64(1); layer <= 3; layer++ {
			if evict&(1<<(layer-1)) != 0 {
				s := r.m.shard(Key{layer, 0})
				if p := s.pages[Key{layer, 0}]; p != nil {
					r.m.remove(s, p)
				}
			}
		}
		compareMaps(t, fmt.Sprintf("evicted %03b", evict), r.m, r.want, 1, 2, 3)
		compareMaps(t, fmt.Sprintf("evicted %03b", evict), r.m, r.want, 2)
	}
}

// checkMemory: the counters are those of the pages there are.
func (r *runner) checkMemory(when string) {
	r.t.Helper()
	var bytes, dirty int64
	changed := map[Key]bool{}
	for layer, w := range r.m.changed.layers {
		pages, _ := r.m.changed.in(nil, layer, 0, 1<<62)
		if len(w) == 0 || len(pages) == 0 {
			r.t.Fatalf("%s: the index of changed pages has layer %d without any", when, layer)
		}
		for _, pg := range pages {
			changed[Key{layer, pg}] = true
		}
	}
	for i := range r.m.shards {
		s := &r.m.shards[i]
		for slot, p := range s.ring {
			if p.slot != slot || s.pages[p.key] != p || p.pins != 0 || p.loading != nil {
				r.t.Fatalf("%s: page %v is in slot %d of the ring, it says %d; %d pins", when, p.key, slot, p.slot, p.pins)
			}
			bytes += p.bytes()
			if p.gen == r.m.gen {
				dirty += p.bytes()
			}
			if p.gen != 0 && !changed[p.key] {
				r.t.Fatalf("%s: page %v changed and is not in the index", when, p.key)
			}
			if p.gen != 0 {
				delete(changed, p.key)
			}
		}
	}
	if len(changed) > 0 {
		r.t.Fatalf("%s: %v did not change but are in the index", when, changed)
	}
	if st := r.m.Stats(); st.Bytes != bytes || st.Dirty != dirty {
		r.t.Fatalf("%s: %+v, but there are %d bytes, %d dirty", when, st, bytes, dirty)
	}
}

// TestMapModel does random things to the map and to a model of it, with caches
// that hold everything, some, and next to nothing.
func TestMapModel(t *testing.T) {
	seeds := uint64(3)
	switch {
	case os.Getenv("LSAD_SOAK") != "":
		seeds = 40
	case os.Getenv("LSAD_TEST") == "full":
		seeds = 10
	}
	used, outdated := int64(0), int64(0)
	for _, budget := range []int64{1, 200 << 10, 64 << 20} {
		for seed := uint64(1); seed <= seeds; seed++ {
			t.Run(fmt.Sprintf("%d bytes, seed %d", budget, seed), func(t *testing.T) {
				r := newRunner(t, seed, budget)
				for i := range 200 {
					what := r.step()
					if i%10 == 9 {
						r.check(fmt.Sprintf("step %d, %s", i, what))
					}
				}
				for r.checkpoint() != "end of a checkpoint" {
				}
				if st := r.m.Stats(); st.Dirty == 0 && st.Bytes > max(budget, pageBytes) {
					t.Fatalf("%+v: clean pages stay beyond the budget", st)
				}
				used, outdated = used+r.m.views.used.Load(), outdated+r.m.views.outdated.Load()
			})
		}
	}
	if used == 0 || outdated == 0 {
		t.Errorf("%d views were used, %d were found outdated", used, outdated)
	}
	t.Logf("%d views were used, %d were found outdated", used, outdated)
}
