package blockmap

import (
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// few: below so many pages it is cheaper to look at each than to search.
const few = 64

// PagesIn returns, in order, the pages in [from, to) in which the layer or an
// ancestor may map something. own leaves the ancestors out.
func (m *Map) PagesIn(layer, from, to uint64, own bool) ([]uint64, error) {
	if to-from <= few {
		var all []uint64
		for pg := from; pg < to; pg++ {
			all = append(all, pg)
		}
		return all, nil
	}
	chain := []uint64{layer}
	if !own {
		chain = m.Layers.Chain(layer)
	}
	// The cache first: what is dirty now and clean by the time the store is
	// read will be found there.
	pages := m.cachedPages(chain, from, to)
	for _, l := range chain {
		var err error
		if pages, err = m.storedPages(pages, l, from, to); err != nil {
			return nil, err
		}
	}
	slices.Sort(pages)
	return slices.Compact(pages), nil
}

func (m *Map) cachedPages(chain []uint64, from, to uint64) []uint64 {
	var pages []uint64
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		for _, p := range s.ring {
			k := p.key
			if k.Page >= from && k.Page < to && (p.loading != nil || len(p.entries) > 0) && slices.Contains(chain, k.Layer) {
				pages = append(pages, k.Page)
			}
		}
		s.mu.RUnlock()
	}
	return pages
}

func (m *Map) storedPages(pages []uint64, layer, from, to uint64) (_ []uint64, err error) {
	it, err := m.db.NewIter(&pebble.IterOptions{
		LowerBound: PageKey(Key{layer, from}),
		UpperBound: PageKey(Key{layer, to}),
	})
	if err != nil {
		return nil, fmt.Errorf("list map pages of layer %d: %w", layer, err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		k, err := ParsePageKey(it.Key())
		if err != nil {
			return nil, errClose(err, it)
		}
		pages = append(pages, k.Page)
	}
	if err := it.Close(); err != nil {
		return nil, fmt.Errorf("list map pages of layer %d: %w", layer, err)
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
		return fmt.Errorf("read the map: %w", err)
	}
	var buf []Entry
	for ok := it.First(); ok; ok = it.Next() {
		k, err := ParsePageKey(it.Key())
		if err == nil && changed[k] {
			continue
		}
		value, readErr := it.ValueAndErr()
		if readErr != nil {
			return errClose(fmt.Errorf("read map page %d of layer %d: %w", k.Page, k.Layer, readErr), it)
		}
		if err == nil {
			buf, err = DecodePage(buf[:0], value)
		}
		if err := fn(k, buf, err); err != nil {
			return errClose(err, it)
		}
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("read the map: %w", err)
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
}

// Stats returns what the cache is doing.
func (m *Map) Stats() Stats {
	return Stats{
		Budget: m.budget, Bytes: m.bytes.Load(), Dirty: m.dirty.Load(), Flushing: m.flushing.Load(),
		Hits: m.hits.Load(), Misses: m.misses.Load(),
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
