package blockmap

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// view is what a reader sees of a page, as far as it is known: the entry of a
// block stands at its offset and is KindNone until a layer is found that has one.
type view struct {
	entries [PageBlocks]Entry
	known   int     // entries that are not KindNone
	void    int     // of them, inherited holes: they hide nothing
	buf     []Entry // of the row that is decoded
	encoded []byte
}

var viewPool = sync.Pool{New: func() any { return &view{buf: make([]Entry, 0, PageBlocks)} }}

// below adds what the next layer of the chain has: it shows where nothing above
// it has an entry.
func (v *view) below(entries []Entry, own bool) {
	for i := range entries {
		e := &entries[i]
		if at := &v.entries[e.Off]; at.Kind == KindNone {
			*at = *e
			at.Own = own
			v.known++
			if at.voids() {
				v.void++
			}
		}
	}
}

// above puts the layer's own entries over what those below it have.
func (v *view) above(own []Entry) {
	for i := range own {
		at := &v.entries[own[i].Off]
		switch {
		case at.Kind == KindNone:
			v.known++
		case at.voids():
			v.void--
		}
		*at = own[i]
	}
}

func (v *view) reset() {
	clear(v.entries[:])
	v.known, v.void = 0, 0
}

func (e *Entry) voids() bool { return e.Kind == KindHole && !e.Own }

// page returns the entries in order, without the inherited holes.
func (v *view) page() []Entry {
	n := v.known - v.void
	switch n {
	case 0:
		return nil
	case PageBlocks:
		return slices.Clone(v.entries[:])
	}
	out := make([]Entry, 0, n)
	for i := range v.entries {
		if e := &v.entries[i]; e.Kind != KindNone && !e.voids() {
			out = append(out, *e)
		}
	}
	return out
}

// resolve works out what a reader of the page sees. The layers are gone through
// from the page's own on down, until one is in the cache, resolved, or every
// block is known. Where the chain is long, views of pages are used and kept: the
// one returned, if any, is worth to be stored, if no ancestor changed meanwhile.
//
// The cache first, then the store: a page that is not in the cache is in the
// store as it is, and one that changes in between has this one loaded again.
// The other way about, a row could be read that is older than the page which
// leaves the cache meanwhile.
func (m *Map) resolve(k Key) ([]Entry, *kept, error) {
	number := m.views.next.Load() // before anything is read
	if m.beforeCache != nil {
		m.beforeCache()
	}
	if entries, ok, err := m.near(k); ok {
		return entries, nil, err
	}
	chain := m.Layers.Chain(k.Layer)
	if len(chain) < 2 {
		entries, err := m.stored(k)
		// Without a parent holes hide nothing, own or not.
		return slices.DeleteFunc(entries, func(e Entry) bool { return e.Kind == KindHole }), nil, err
	}
	v := viewPool.Get().(*view)
	defer viewPool.Put(v)
	v.reset()
	if m.views.places != nil && len(chain) > m.views.from {
		return m.resolveLong(v, k, chain[1:], number)
	}
	cached, n := m.nearest(chain[1:], k.Page)
	entries, err := m.resolveShort(v, chain[:1+n], k.Page, cached)
	return entries, nil, err
}

// resolveShort puts the rows of a page's own layer and of those next to it over what
// the one below them shows.
func (m *Map) resolveShort(v *view, layers []uint64, pg uint64, below []Entry) (entries []Entry, err error) {
	r := rowReader{m: m}
	defer r.close(&err)
	if v.buf, err = r.page(v.buf[:0], Key{layers[0], pg}); err != nil {
		return nil, err
	}
	v.below(v.buf, true)
	if _, err := r.rows(v, layers[1:], pg); err != nil {
		return nil, err
	}
	v.below(below, false)
	return v.page(), nil
}

// nearest copies the entries of the first of the layers that has the page in the
// cache. Those of n layers before it have not.
func (m *Map) nearest(layers []uint64, pg uint64) (entries []Entry, n int) {
	for i, layer := range layers {
		if entries, ok := m.cached(Key{layer, pg}); ok {
			return entries, i
		}
	}
	return nil, len(layers)
}

// cached copies the entries of a resolved page, if it is in the cache.
func (m *Map) cached(k Key) ([]Entry, bool) {
	s := m.shard(k)
	s.mu.RLock()
	defer s.mu.RUnlock()
	p := s.pages[k]
	if p == nil || p.loading != nil {
		return nil, false
	}
	return append([]Entry(nil), p.entries...), true
}

// stored reads a page's own entries from the metadata store.
func (m *Map) stored(k Key) ([]Entry, error) {
	var buf [17]byte
	value, closer, err := m.db.Get(appendKey(buf[:0], k))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read map page %d of layer %d: %w", k.Page, k.Layer, StoreError(err))
	}
	defer closer.Close()
	m.rowsRead.Add(1)
	entries, err := DecodePage(nil, value)
	if err != nil {
		return nil, fmt.Errorf("map page %d of layer %d: %w", k.Page, k.Layer, err)
	}
	return entries, nil
}
