package blockmap

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"lsad/lsa/format"
)

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
	sealed map[uint64]bool // layers that others stand or stood on
	swept  map[uint64]bool // layers without a name

	frozen     func(layer uint64, want *tree) // told of layers that were sealed, if not nil
	lefts      *segmentLefts
	number     uint64 // of the last checkpoint that was made
	ckpt       *Checkpoint
	image      *tree // as of ckpt
	imageLefts *segmentLefts
	wrote      bool
}

func newRunner(t testing.TB, seed uint64, budget int64) *runner {
	r := &runner{t: t, rng: rand.New(rand.NewPCG(seed, 9)), db: newStore(t), books: newBooks(), lsn: 1, nextID: 2, sealed: map[uint64]bool{}, swept: map[uint64]bool{},
		want: &tree{map[uint64]uint64{1: 0}, map[uint64]map[uint64]Entry{1: {}}}}
	r.m = New(r.db, NewLayers([]Layer{{ID: 1}}), r.books, budget)
	r.lefts = &segmentLefts{numbers: map[format.Place]uint64{}}
	if err := r.m.KeepViews(r.lefts, 0, 1); err != nil {
		t.Fatal(err)
	}
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

// head picks a layer that takes writes: one on which nothing ever stood.
func (r *runner) head() uint64 {
	layer := r.pick(func(l uint64) bool { return !r.sealed[l] })
	if layer == 0 {
		r.add(r.pick(func(l uint64) bool { return !r.swept[l] }))
		layer = r.nextID - 1
	}
	return layer
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
	r.sealed[parent] = true
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
	layer := r.pick(func(l uint64) bool { return r.sealed[l] && !r.swept[l] })
	if layer != 0 && len(r.want.parent) < 40 {
		r.add(layer)
	}
	return fmt.Sprintf("clone of layer %d", layer)
}

// drop deletes a layer that nothing stands on, page by page.
func (r *runner) drop() string {
	layer := r.pick(func(l uint64) bool {
		return len(r.want.children(l)) == 0 && r.want.parent[l] != 0 && len(r.want.parent) > 2
	})
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
	r.m.DropViews(layer)
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
	r.swept[layer] = true
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
			compareMaps(r.t, fmt.Sprintf("in the middle of a merge of layer %d", layer), r.m, r.want, append(r.unread(), layer)...)
		}
	}
	r.m.Layers.Splice(layer, true)
	r.m.DropViews(layer)
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
	r.swept[layer] = true
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
		r.ckpt, r.image, r.imageLefts, r.wrote = r.m.Begin(r.number+1), r.want.clone(), r.lefts.clone(), false
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
	r.number++
	r.ckpt.Done()
	r.ckpt = nil
	r.checkStored()
	return "end of a checkpoint"
}
