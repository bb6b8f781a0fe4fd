package blockmap

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/lsa/format"
)

func newStore(t testing.TB) *pebble.DB {
	t.Helper()
	db, err := pebble.Open("map", &pebble.Options{FS: vfs.NewMem(), DisableWAL: true, Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
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

const testPages = 5

// runner does the same to a Map and to a tree.
type runner struct {
	t      testing.TB
	rng    *rand.Rand
	db     *pebble.DB
	m      *Map
	books  *books
	want   *tree
	lsn    uint64
	place  uint32
	nextID uint64

	frozen func(layer uint64, want *tree) // told of layers that were sealed, if not nil
	ckpt   *Checkpoint
	image  *tree // as of ckpt
	wrote  bool
}

func newRunner(t testing.TB, seed uint64, budget int64) *runner {
	r := &runner{t: t, rng: rand.New(rand.NewPCG(seed, 9)), db: newStore(t), books: newBooks(), lsn: 1, nextID: 2,
		want: &tree{map[uint64]uint64{1: 0}, map[uint64]map[uint64]Entry{1: {}}}}
	r.m = New(r.db, NewLayers([]Layer{{ID: 1}}), r.books, budget)
	return r
}

func (r *runner) pick(match func(layer uint64) bool) uint64 {
	var all []uint64
	for _, l := range r.want.layers() {
		if match(l) {
			all = append(all, l)
		}
	}
	if len(all) == 0 {
		return 0
	}
	return all[r.rng.IntN(len(all))]
}

func (r *runner) head() uint64 {
	return r.pick(func(l uint64) bool { return len(r.want.children(l)) == 0 })
}

func (r *runner) pin(pg uint64, layers ...uint64) (unpin func()) {
	r.t.Helper()
	for _, l := range layers {
		if err := r.m.Pin(Key{l, pg}); err != nil {
			r.t.Fatal(err)
		}
	}
	return func() {
		for _, l := range layers {
			r.m.Unpin(Key{l, pg})
		}
	}
}

// inPage picks a run of blocks within one page.
func (r *runner) inPage() (block uint64, n int) {
	off := r.rng.IntN(PageBlocks)
	n = 1 + r.rng.IntN(min(PageBlocks-off, 60))
	return uint64(r.rng.IntN(testPages)*PageBlocks + off), n
}

func (r *runner) step() string {
	switch k := r.rng.IntN(100); {
	case k < 40:
		return r.write()
	case k < 47:
		return r.zero()
	case k < 57:
		return r.unmap()
	case k < 70:
		return r.move()
	case k < 75:
		return r.snapshot()
	case k < 78:
		return r.clone()
	case k < 81:
		return r.drop()
	case k < 84:
		return r.merge()
	case k < 87:
		return r.sweep()
	default:
		return r.checkpoint()
	}
}

func (r *runner) write() string {
	layer := r.head()
	block := r.rng.Uint64N(testPages*PageBlocks - 100)
	n := 1 + r.rng.IntN(100)
	for pg := block / PageBlocks; pg <= (block+uint64(n)-1)/PageBlocks; pg++ {
		defer r.pin(pg, layer)()
	}
	r.lsn++
	place := format.MakePlace(1, r.place>>10, r.place&1023*1000+1)
	r.place++
	var second format.Place
	if r.rng.IntN(3) == 0 {
		second = format.MakePlace(2, place.Segment(), place.Sector())
	}
	crc := func(i int) uint32 { return uint32(r.lsn)<<8 | uint32(i) }
	r.m.Write(layer, block, n, r.lsn, place, second, crc)
	for i := range n {
		e := Entry{LSN: r.lsn, Kind: KindData, CRC: crc(i), Place: [2]format.Place{place.After(i)}}
		if second != 0 {
			e.Place[1] = second.After(i)
		}
		r.want.own[layer][block+uint64(i)] = e
	}
	return fmt.Sprintf("write of %d+%d to layer %d", block, n, layer)
}

func (r *runner) zero() string {
	layer := r.head()
	block, n := r.inPage()
	defer r.pin(block/PageBlocks, layer)()
	r.lsn++
	r.m.Zero(layer, block, n, r.lsn)
	for i := range n {
		r.want.own[layer][block+uint64(i)] = Entry{LSN: r.lsn, Kind: KindZero}
	}
	return fmt.Sprintf("zero of %d+%d of layer %d", block, n, layer)
}

func (r *runner) unmap() string {
	layer := r.head()
	block, n := r.inPage()
	defer r.pin(block/PageBlocks, layer)()
	r.lsn++
	r.m.Unmap(layer, block, n, r.lsn)
	for i := range n {
		r.want.unmap(layer, block+uint64(i), r.lsn)
	}
	return fmt.Sprintf("unmap of %d+%d of layer %d", block, n, layer)
}

// move moves a block of some layer, or tries to with an LSN or a place that is
// not its own, or where the layer has none.
func (r *runner) move() string {
	layer := r.pick(func(uint64) bool { return true })
	block := r.rng.Uint64N(testPages * PageBlocks)
	for try := range uint64(200) { // look for one that is mapped
		if _, ok := r.want.own[layer][block+try]; ok {
			block += try
			break
		}
	}
	e, ok := r.want.own[layer][block]
	which, lsn := r.rng.IntN(2), e.LSN
	from := e.Place[which]
	wrong := r.rng.IntN(4) == 0
	if wrong {
		if r.rng.IntN(2) == 0 {
			lsn++
		} else {
			from += 8
		}
	}
	to := format.MakePlace(3, r.place>>10, r.place&1023*1000+1)
	r.place++
	defer r.pin(block/PageBlocks, layer)()
	moved := r.m.Move(layer, block, lsn, from, to)
	other := e.Place[1-which]
	together := other != 0 && other.Device() == to.Device() // copies stay apart
	if want := ok && e.Kind == KindData && from != 0 && !wrong && !together; from != 0 && moved != want {
		r.t.Fatalf("move of block %d of layer %d: %v, want %v", block, layer, moved, want)
	}
	if moved {
		e.Place[which] = to
		r.want.own[layer][block] = e
	}
	return fmt.Sprintf("move of block %d of layer %d", block, layer)
}

func (r *runner) add(parent uint64) {
	id := r.nextID
	r.nextID++
	r.m.Layers.Add(Layer{ID: id, Parent: parent})
	r.want.parent[id], r.want.own[id] = parent, map[uint64]Entry{}
	if r.frozen != nil {
		r.frozen(parent, r.want)
	}
}

func (r *runner) snapshot() string {
	layer := r.head()
	if len(r.want.parent) < 40 {
		r.add(layer)
	}
	return fmt.Sprintf("snapshot of layer %d", layer)
}

func (r *runner) clone() string {
	layer := r.pick(func(l uint64) bool { return len(r.want.children(l)) > 0 })
	if layer != 0 && len(r.want.parent) < 40 {
		r.add(layer)
	}
	return fmt.Sprintf("clone of layer %d", layer)
}

// drop deletes a layer that nothing stands on, page by page.
func (r *runner) drop() string {
	layer := r.pick(func(l uint64) bool { return len(r.want.children(l)) == 0 && r.want.parent[l] != 0 })
	if layer == 0 || r.frozen != nil {
		return "no drop"
	}
	for pg := range uint64(testPages) {
		unpin := r.pin(pg, layer)
		r.m.DropPage(Key{layer, pg})
		unpin()
		for b := range r.want.own[layer] {
			if b/PageBlocks == pg {
				delete(r.want.own[layer], b)
			}
		}
		r.maybe(r.checkpoint)
	}
	r.m.Layers.Splice(layer, false)
	delete(r.want.parent, layer)
	delete(r.want.own, layer)
	return fmt.Sprintf("drop of layer %d", layer)
}

func (r *runner) maybe(fn func() string) {
	if r.rng.IntN(3) == 0 {
		fn()
	}
}

// merge gives a layer's blocks to its only child, page by page, while other
// things go on.
func (r *runner) merge() string {
	layer := r.pick(func(l uint64) bool { return len(r.want.children(l)) == 1 })
	if layer == 0 {
		return "no merge"
	}
	child := r.want.children(layer)[0]
	for pg := range uint64(testPages) {
		unpin := r.pin(pg, layer, child)
		r.m.MergePage(layer, child, pg)
		unpin()
		for b, e := range r.want.own[layer] {
			if b/PageBlocks != pg {
				continue
			}
			if _, hidden := r.want.own[child][b]; !hidden {
				r.want.own[child][b] = e
			}
			delete(r.want.own[layer], b)
		}
		r.maybe(r.checkpoint)
		if r.head() != layer {
			r.maybe(r.write)
			r.maybe(r.unmap)
		}
		if pg == testPages/2 { // nobody reads the layer itself any more
			compareMaps(r.t, fmt.Sprintf("in the middle of a merge of layer %d", layer), r.m, r.want, layer)
		}
	}
	r.m.Layers.Splice(layer, true)
	for _, c := range r.want.children(layer) {
		r.want.parent[c] = r.want.parent[layer]
	}
	delete(r.want.parent, layer)
	delete(r.want.own, layer)
	return fmt.Sprintf("merge of layer %d into %d", layer, child)
}

// sweep frees what all children of a layer hide, as if it had no name.
func (r *runner) sweep() string {
	layer := r.pick(func(l uint64) bool { return len(r.want.children(l)) > 1 })
	if layer == 0 || r.frozen != nil {
		return "no sweep"
	}
	children := r.want.children(layer)
	for pg := range uint64(testPages) {
		unpin := r.pin(pg, append([]uint64{layer}, children...)...)
		r.m.DropHidden(layer, children, pg)
		unpin()
	}
	for b, e := range r.want.own[layer] {
		hidden := e.Kind != KindHole
		for _, c := range children {
			_, ok := r.want.own[c][b]
			hidden = hidden && ok
		}
		if hidden {
			delete(r.want.own[layer], b)
		}
	}
	return fmt.Sprintf("sweep of layer %d", layer)
}

// checkpoint does the next part of one; what others do comes between.
func (r *runner) checkpoint() string {
	switch {
	case r.ckpt == nil:
		r.ckpt, r.image, r.wrote = r.m.Begin(), r.want.clone(), false
		return "begin of a checkpoint"
	case r.rng.IntN(8) == 0:
		r.ckpt.Failed()
		r.ckpt = nil
		return "failed checkpoint"
	}
	batch := r.db.NewBatch()
	if err := r.ckpt.WriteTo(batch); err != nil {
		r.t.Fatal(err)
	}
	if r.rng.IntN(8) == 0 {
		batch.Close()
		r.ckpt.Failed()
		r.ckpt = nil
		return "checkpoint that failed late"
	}
	if err := r.db.Apply(batch, pebble.NoSync); err != nil {
		r.t.Fatal(err)
	}
	r.ckpt.Done()
	r.ckpt = nil
	r.checkStored()
	return "end of a checkpoint"
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
	compareMaps(r.t, "stored", stored, r.image)
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
	compareMaps(r.t, when, r.m, r.want)
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
	r.checkMemory(when)
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
		pages, err := m.PagesIn(layer, 0, 1<<40, own)
		if err != nil {
			t.Fatal(err)
		}
		for l := layer; l != 0 && (l == layer || !own); l = want.parent[l] {
			for b := range want.own[l] {
				if _, ok := slices.BinarySearch(pages, b/PageBlocks); !ok {
					t.Fatalf("%s: page %d of layer %d is missing from %v", when, b/PageBlocks, layer, pages)
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
		c := r.m.Begin()
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
		}
	}
	if st := r.m.Stats(); st.Bytes != bytes || st.Dirty != dirty {
		r.t.Fatalf("%s: %+v, but there are %d bytes, %d dirty", when, st, bytes, dirty)
	}
}

// TestMapModel does random things to the map and to a model of it, with caches
// that hold everything, some, and next to nothing.
func TestMapModel(t *testing.T) {
	seeds := uint64(3)
	if os.Getenv("LSAD_TEST") == "full" {
		seeds = 30
	}
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
				if r.ckpt == nil {
					r.checkpoint()
				}
				for r.ckpt != nil {
					r.checkpoint()
				}
				if st := r.m.Stats(); st.Dirty == 0 && st.Bytes > max(budget, pageBytes) {
					t.Fatalf("%+v: clean pages stay beyond the budget", st)
				}
			})
		}
	}
}
