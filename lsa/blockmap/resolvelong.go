package blockmap

// resolveLong is resolve where a page has many ancestors, nearest first. number is
// that of the next checkpoint from before anything was read.
func (m *Map) resolveLong(v *view, k Key, ancestors []uint64, number uint64) (entries []Entry, keep *kept, err error) {
	base := m.findBase(ancestors, k.Page)
	r := rowReader{m: m} // behind the cache: see resolve
	defer r.close(&err)
	own, err := r.page(nil, k)
	if err != nil || len(own) == PageBlocks {
		return own, nil, err
	}
	few := min(base.n, m.views.from)
	looked, err := r.rows(v, ancestors[:few], k.Page)
	if err != nil {
		return nil, nil, err
	}
	if v.with(own) == PageBlocks { // nothing of what lies below shows
		v.above(own)
		return v.page(), nil, nil
	}
	more, err := r.rows(v, ancestors[few:base.n], k.Page)
	if err != nil {
		return nil, nil, err
	}
	v.below(base.entries, false)
	if looked+more >= m.views.from && !base.cached && m.worthKeeping(k.Layer, v, number) {
		keep = &kept{key: Key{ancestors[0], k.Page}, value: v.value(number), also: base.also}
	}
	v.above(own)
	return v.page(), keep, nil
}

// with returns how many blocks are known together with the layer's own.
func (v *view) with(own []Entry) int {
	n := v.known
	for i := range own {
		if v.entries[own[i].Off].Kind == KindNone {
			n++
		}
	}
	return n
}

// worthKeeping: views are for those who read and write the newest, volumes and clones. A
// walk through all layers, or a backup of a snapshot, would leave one for each that it
// looked at. And on a device that is absent none would ever hold.
func (m *Map) worthKeeping(layer uint64, v *view, number uint64) bool {
	return m.views.hasRoom() && m.Layers.leaf(layer) && m.views.holds(number, v.entries[:])
}

// base is what the search through the ancestors of a page ended with.
type base struct {
	entries []Entry // that the n-th ancestor shows, nil if there was none
	n       int     // ancestors before it have neither a cached page nor a view that holds
	// cached: it was a cached page. Of a layer that was swept such a page may lack what shows from below where
	// nobody sees it. No harm, but lsad check would miss it in a view.
	cached bool
	also   []Key // views that a new one takes the place of
}

// mostViews beyond the nearest layers are tried for a page. After a collection all
// of a chain may be out of date.
const mostViews = 2

func (m *Map) findBase(ancestors []uint64, pg uint64) (b base) {
	tried := 0
	for i, layer := range ancestors {
		k := Key{layer, pg}
		if entries, ok := m.cached(k); ok {
			return base{entries, i, true, b.also}
		}
		if i == 0 || !m.views.has(layer) { // that of the next layer is replaced
			continue
		}
		b.also = append(b.also, k)
		if i < m.views.from || tried == mostViews { // near tried
			continue
		}
		tried++
		if entries, ok := m.view(k); ok {
			return base{entries, i, false, b.also}
		}
	}
	b.n = len(ancestors)
	return b
}
