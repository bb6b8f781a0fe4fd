package blockmap

import "slices"

// near resolves a page one of whose next ancestors is in the cache or has a view
// that holds. It is what a miss usually comes to; ok is false if it does not, and err
// means nothing then.
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
		value, damage := r.get(viewKey(r.key[:0], at))
		if damage != nil { // which the iterator may show for other rows too
			m.views.outdated.Add(1)
			return nil, false, nil
		}
		if view, holds := m.decodeView(value); holds {
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
