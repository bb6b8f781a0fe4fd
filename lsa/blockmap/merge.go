package blockmap

// Steps of giving back a layer's blocks. Like all changes they are made under
// the array's commit lock with the pages pinned. Each leaves the map right, so
// a crash between two of them costs nothing but doing the rest later.

// DropPage frees all that the layer itself has in a page.
func (m *Map) DropPage(k Key) {
	m.views.forget(k)
	m.change(k, func(p *page) {
		p.markAll()
		for i := range p.entries {
			if p.entries[i].Own {
				m.acct.Freed(k.Layer, &p.entries[i])
			}
		}
		p.entries = nil
	})
}

// MergePage gives what layer's page has, and its only child does not hide, to
// the child. Both pages are pinned.
func (m *Map) MergePage(layer, child, pg uint64) {
	from, to := Key{layer, pg}, Key{child, pg}
	m.views.forget(from)
	own := m.ownEntries(from)
	taken := make([]bool, len(own))
	m.change(to, func(p *page) {
		p.markAll()
		for i := range own {
			e := p.get(own[i].Off)
			if e != nil && !e.Own {
				e.Own, taken[i] = true, true
				m.acct.Freed(layer, e)
				m.acct.Used(child, e)
			}
			if e == nil && own[i].Kind == KindHole {
				// The view has no entry for an inherited hole; the child needs
				// it to go on hiding what lies below the layer.
				at := p.find(own[i].Off)
				p.splice(at, at, 1)[0] = own[i]
				taken[i] = true
			}
		}
	})
	m.change(from, func(p *page) {
		p.markAll()
		for i := range own {
			if !taken[i] {
				m.acct.Freed(layer, &own[i])
			}
		}
		// What it inherits stays: descendants that load just now look here
		// for it. At the offsets that go the child has its own.
		p.entries = inherited(p.entries)
	})
	m.eachDescendant(child, pg, nil)
}

// DropHidden frees what layer's page has and every child hides: nobody can
// read it. All the pages are pinned.
func (m *Map) DropHidden(layer uint64, children []uint64, pg uint64) {
	m.views.forget(Key{layer, pg})
	visible := make(map[uint16]bool)
	for _, c := range children {
		hidden := make(map[uint16]bool)
		for _, e := range m.ownEntries(Key{c, pg}) {
			hidden[e.Off] = true
		}
		for _, e := range m.ownEntries(Key{layer, pg}) {
			if !hidden[e.Off] {
				visible[e.Off] = true
			}
		}
	}
	m.change(Key{layer, pg}, func(p *page) {
		p.markAll()
		kept := p.entries[:0]
		for i := range p.entries {
			e := p.entries[i]
			if e.Own && e.Kind != KindHole && !visible[e.Off] {
				m.acct.Freed(layer, &e)
				continue
			}
			kept = append(kept, e)
		}
		p.entries = kept
	})
}

func inherited(entries []Entry) []Entry {
	kept := entries[:0]
	for _, e := range entries {
		if !e.Own {
			kept = append(kept, e)
		}
	}
	return kept
}

func (m *Map) ownEntries(k Key) []Entry {
	all, _ := m.cached(k)
	own := all[:0]
	for _, e := range all {
		if e.Own {
			own = append(own, e)
		}
	}
	return own
}
