package blockmap

import (
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// few: so many pages are looked for in the cache, one by one, before the store
// is asked.
const few = 64

// PagesIn returns, in order, the pages in [from, to) in which the layer or an
// ancestor may map something. own leaves the ancestors out. What it costs depends
// on what the layers have there, not on how wide the range is or on what else is
// cached.
func (m *Map) PagesIn(layer, from, to uint64, own bool) ([]uint64, error) {
	if from >= to {
		return nil, nil
	}
	if to-from <= few {
		if pages, ok := m.cachedIn(layer, from, to); ok {
			return pages, nil
		}
	}
	chain := []uint64{layer}
	if !own {
		chain = m.Layers.Chain(layer)
	}
	// What changed comes first: if it is clean by the time the store is read, it
	// will be found there.
	var pages []uint64
	for _, l := range chain {
		pages = m.changedIn(pages, l, from, to)
	}
	pages, err := m.storedIn(pages, chain, from, to)
	if err != nil {
		return nil, err
	}
	slices.Sort(pages)
	return slices.Compact(pages), nil
}

// cachedIn returns the pages in which a reader of the layer sees something; ok is
// false if one of the range is not in the cache.
func (m *Map) cachedIn(layer, from, to uint64) (pages []uint64, ok bool) {
	for pg := from; pg < to; pg++ {
		m.looked.Add(1)
		n, ok := m.cachedLen(Key{layer, pg})
		if !ok {
			return nil, false
		}
		if n > 0 {
			pages = append(pages, pg)
		}
	}
	return pages, true
}

// cachedLen returns how many entries a cached page has.
func (m *Map) cachedLen(k Key) (n int, ok bool) {
	s := m.shard(k)
	s.mu.RLock()
	defer s.mu.RUnlock()
	p := s.pages[k]
	if p == nil || p.loading != nil {
		return 0, false
	}
	return len(p.entries), true
}

// changedIn appends the layer's pages in [from, to) that were changed and are not
// empty.
func (m *Map) changedIn(pages []uint64, layer, from, to uint64) []uint64 {
	old := len(pages)
	pages, looked := m.changed.in(pages, layer, from, to)
	m.looked.Add(int64(looked + len(pages) - old))
	kept := pages[:old]
	for _, pg := range pages[old:] {
		if n, ok := m.cachedLen(Key{layer, pg}); !ok || n > 0 {
			kept = append(kept, pg)
		}
	}
	return kept
}

// storedIn appends the layers' pages in [from, to) that the store has. The rows of
// the store are in order, so a row that lies behind a layer's range lies behind
// those of layers without any rows too: they are not asked for one by one.
func (m *Map) storedIn(pages []uint64, layers []uint64, from, to uint64) ([]uint64, error) {
	layers = slices.Sorted(slices.Values(layers))
	var low, high [17]byte
	it, err := m.db.NewIter(&pebble.IterOptions{
		LowerBound: appendKey(low[:0], Key{layers[0], from}),
		UpperBound: appendKey(high[:0], Key{layers[len(layers)-1], to}),
	})
	if err != nil {
		return nil, fmt.Errorf("list map pages: %w", err)
	}
	var key [17]byte
	var at Key // of the row that the iterator stands on
	for ok := it.First(); ok; {
		m.looked.Add(1)
		if at, err = ParsePageKey(it.Key()); err != nil {
			return nil, errClose(err, it)
		}
		for len(layers) > 0 && (layers[0] < at.Layer || layers[0] == at.Layer && at.Page >= to) {
			layers = layers[1:]
		}
		switch {
		case len(layers) == 0:
			ok = false
		case layers[0] == at.Layer && at.Page >= from:
			pages = append(pages, at.Page)
			ok = it.Next()
		default:
			ok = it.SeekGE(appendKey(key[:0], Key{layers[0], from}))
		}
	}
	if err := it.Close(); err != nil {
		return nil, fmt.Errorf("list map pages: %w", err)
	}
	return pages, nil
}

func errClose(err error, it *pebble.Iterator) error {
	_ = it.Close()
	return err
}

// Each calls fn with every page that has own entries, as the map has them now:
// from the cache where a page was changed, from the store otherwise. A page
// that cannot be decoded comes with an error. entries is valid during the call
// only. Nothing may change the map meanwhile: this is for offline checks.
func (m *Map) Each(fn func(k Key, entries []Entry, err error) error) error {
	changed := m.changedPages()
	for k := range changed {
		if err := fn(k, m.ownEntries(k), nil); err != nil {
			return err
		}
	}
	it, err := m.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyPrefix}, UpperBound: []byte{keyPrefix + 1}})
	if err != nil {
		return fmt.Errorf("read the map: %w", StoreError(err))
	}
	var buf []Entry
	for ok := it.First(); ok; ok = it.Next() {
		k, err := ParsePageKey(it.Key())
		if err == nil && changed[k] {
			continue
		}
		value, readErr := it.ValueAndErr()
		if readErr != nil {
			return errClose(fmt.Errorf("read map page %d of layer %d: %w", k.Page, k.Layer, StoreError(readErr)), it)
		}
		if err == nil {
			buf, err = DecodePage(buf[:0], value)
		}
		if err := fn(k, buf, err); err != nil {
			return errClose(err, it)
		}
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("read the map: %w", StoreError(err))
	}
	return nil
}

// changedPages returns the pages that the store does not have as they are.
func (m *Map) changedPages() map[Key]bool {
	changed := map[Key]bool{}
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		for _, p := range s.ring {
			if p.gen != 0 {
				changed[p.key] = true
			}
		}
		s.mu.RUnlock()
	}
	return changed
}

// Stats of the cache, in bytes and counts since the start.
type Stats struct {
	Budget, Bytes, Dirty, Flushing int64
	Hits, Misses                   int64
	ViewsKept                      int64 // stored by checkpoints
	ViewsUsed                      int64 // by misses, in place of the rows of many layers
	ViewsOutdated                  int64 // found so, or damaged, and not used
}

// Stats returns what the cache is doing.
func (m *Map) Stats() Stats {
	return Stats{
		Budget: m.budget, Bytes: m.bytes.Load(), Dirty: m.dirty.Load(), Flushing: m.flushing.Load(),
		Hits: m.hits.Load(), Misses: m.misses.Load(),
		ViewsKept: m.views.kept.Load(), ViewsUsed: m.views.used.Load(), ViewsOutdated: m.views.outdated.Load(),
	}
}

// Pressure says how much of the cache is dirty: below 1 all is well, from 1 on a
// checkpoint is due, from 2 on writers should wait for it.
func (m *Map) Pressure() int {
	dirty, flushing := m.dirty.Load(), m.flushing.Load()
	switch {
	case dirty+flushing > m.budget*3/4:
		return 2
	case dirty > m.budget/4 && flushing == 0:
		return 1
	}
	return 0
}
