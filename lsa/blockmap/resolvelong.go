package blockmap

import (
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// near resolves a page one of whose next ancestors is in the cache or has a view
// that holds. It is what a miss usually comes to; ok is false if it does not.
func (m *Map) near(k Key) (entries []Entry, ok bool, err error) {
	var room [viewsMost]uint64
	layers := room[:0] // that are not in the cache
	for at := k; len(layers) < m.views.from && !ok; {
		if at.Layer = m.Layers.Parent(at.Layer); at.Layer == 0 {
			break
		}
		if entries, ok = m.cached(at); !ok {
			layers = append(layers, at.Layer)
		}
	}
	holes := false
	for i := range entries {
		entries[i].Own = false
		holes = holes || entries[i].Kind == KindHole
	}
	if len(layers) == 0 && !ok {
		return nil, false, nil
	}
	r := rowReader{m: m} // behind the cache: see resolve
	defer r.close(&err)
	for i, layer := range layers {
		at := Key{layer, k.Page}
		if !m.views.has(layer) {
			continue
		}
		if view, holds := m.decodeView(r.get(viewKey(r.key[:0], at))); holds {
			entries, holes, layers, ok = view, false, layers[:i], true
			break
		}
	}
	if !ok {
		return nil, false, nil
	}
	entries, err = m.few(&r, entries, holes, layers, k)
	return entries, true, err
}

// few puts the rows of a few layers, nearest first, and of the page itself over what
// shows below them. holes: there may be some, which hide nothing.
func (m *Map) few(r *rowReader, below []Entry, holes bool, layers []uint64, k Key) ([]Entry, error) {
	v := viewPool.Get().(*view)
	defer viewPool.Put(v)
	for i := len(layers) - 1; i >= -1; i-- {
		at := k
		if i >= 0 {
			at.Layer = layers[i]
		}
		var err error
		if v.buf, err = r.page(v.buf[:0], at); err != nil {
			return nil, err
		}
		for j := range v.buf {
			v.buf[j].Own = i < 0
			holes = holes || v.buf[j].voids()
		}
		below = over(below, v.buf)
	}
	if holes {
		below = slices.DeleteFunc(below, func(e Entry) bool { return e.voids() })
	}
	return below, nil
}

// rowReader reads several rows from the store as it is at the first.
type rowReader struct {
	m   *Map
	it  *pebble.Iterator
	key [17]byte
}

// get returns the value of a row, nil if there is none. It is valid until the next call.
func (r *rowReader) get(key []byte) (value []byte, err error) {
	if r.it == nil {
		if r.it, err = r.m.db.NewIter(nil); err != nil {
			return nil, StoreError(err)
		}
	}
	if !r.it.SeekPrefixGE(key) {
		return nil, StoreError(r.it.Error())
	}
	r.m.rowsRead.Add(1)
	value, err = r.it.ValueAndErr()
	return value, StoreError(err)
}

// page appends a page's own entries to dst.
func (r *rowReader) page(dst []Entry, k Key) ([]Entry, error) {
	value, err := r.get(appendKey(r.key[:0], k))
	if err != nil {
		return nil, fmt.Errorf("read map page %d of layer %d: %w", k.Page, k.Layer, err)
	}
	if value == nil {
		return dst, nil
	}
	entries, err := DecodePage(dst, value)
	if err != nil {
		return nil, fmt.Errorf("map page %d of layer %d: %w", k.Page, k.Layer, err)
	}
	return entries, nil
}

// close ends reading; an error takes err's place if that is nil.
func (r *rowReader) close(err *error) {
	if r.it == nil {
		return
	}
	if closeErr := r.it.Close(); *err == nil && closeErr != nil {
		*err = fmt.Errorf("read the map: %w", StoreError(closeErr))
	}
}

// over puts own entries over those of a view, in place if that has the room.
func over(below, own []Entry) []Entry {
	p := page{entries: below}
	added := 0
	for i := range own {
		if e := p.get(own[i].Off); e != nil {
			*e = own[i]
		} else {
			added++
		}
	}
	if added == 0 {
		return below
	}
	from := len(below) - 1
	below = slices.Grow(below, added)[:len(below)+added]
	for to, j := len(below)-1, len(own)-1; j >= 0; to-- { // what is below the first own entry stays
		if from >= 0 && below[from].Off >= own[j].Off {
			if below[from].Off == own[j].Off {
				j--
			}
			below[to] = below[from]
			from--
			continue
		}
		below[to] = own[j]
		j--
	}
	return below
}

// resolveLong is resolve where a page has many ancestors, nearest first. number is
// that of the next checkpoint from before anything was read.
func (m *Map) resolveLong(v *view, k Key, ancestors []uint64, number uint64) ([]Entry, *kept, error) {
	own, err := m.stored(k)
	if err != nil || len(own) == PageBlocks {
		return own, nil, err
	}
	base := m.findBase(ancestors, k.Page)
	looked, err := m.rows(v, ancestors[:base.n], k.Page, false)
	if err != nil {
		return nil, nil, err
	}
	v.below(base.entries, false)
	var keep *kept
	if looked >= m.views.from && m.worthKeeping(k.Layer, v, number) {
		keep = &kept{key: Key{ancestors[0], k.Page}, value: v.value(number), also: base.also}
	}
	v.above(own)
	return v.page(), keep, nil
}

// worthKeeping: views are for those who read and write the newest, volumes and clones. A
// walk through all layers, or a backup of a snapshot, would leave one for each that it
// looked at. And on a device that is absent none would ever hold.
func (m *Map) worthKeeping(layer uint64, v *view, number uint64) bool {
	return m.Layers.leaf(layer) && m.views.holds(number, v.entries[:])
}

// base is what the search through the ancestors of a page ended with.
type base struct {
	entries []Entry // that the n-th ancestor shows, nil if there was none
	n       int     // ancestors before it have neither a cached page nor a view that holds
	also    []Key   // views that a new one takes the place of
}

func (m *Map) findBase(ancestors []uint64, pg uint64) (b base) {
	for i, layer := range ancestors {
		k := Key{layer, pg}
		if entries, ok := m.cached(k); ok {
			return base{entries, i, b.also}
		}
		if i > 0 && m.views.has(layer) {
			b.also = append(b.also, k)
		}
		if i < m.views.from {
			continue // near tried
		}
		if entries, ok := m.view(k); ok {
			return base{entries, i, b.also}
		}
	}
	b.n = len(ancestors)
	return b
}
