package blockmap

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"lsad/lsa/format"
)

// CheckViews calls fn with each kept view that is not what it should be: damaged,
// of a layer that is not there, or one that would be believed and shows something
// else than the rows of its layers. Nothing may change the map meanwhile: this is for
// offline checks.
func (m *Map) CheckViews(fn func(k Key, err error) error) error {
	if m.views.places == nil {
		return nil
	}
	it, err := m.db.NewIter(&pebble.IterOptions{LowerBound: []byte{viewPrefix}, UpperBound: []byte{viewPrefix + 1}})
	if err != nil {
		return fmt.Errorf("read kept views: %w", StoreError(err))
	}
	var entries []Entry
	for ok := it.First(); ok; ok = it.Next() {
		k, err := parseViewKey(it.Key())
		value, readErr := it.ValueAndErr()
		if readErr != nil {
			return errClose(fmt.Errorf("read kept view of page %d of layer %d: %w", k.Page, k.Layer, StoreError(readErr)), it)
		}
		if err == nil {
			entries, err = m.checkView(k, entries[:0], value)
		}
		if err != nil {
			if err := fn(k, err); err != nil {
				return errClose(err, it)
			}
		}
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("read kept views: %w", StoreError(err))
	}
	return nil
}

// checkView decodes a view into buf, which it returns, and compares it.
func (m *Map) checkView(k Key, buf []Entry, value []byte) ([]Entry, error) {
	number, entries, err := decodeView(buf, value)
	if err != nil {
		return buf, err
	}
	if l, ok := m.Layers.Get(k.Layer); !ok || l.Merged {
		return entries, fmt.Errorf("%w: there is no such layer", format.ErrInvalid)
	}
	if next := m.views.next.Load(); number == 0 || number > next {
		return entries, fmt.Errorf("%w: it has number %d, the next checkpoint %d", format.ErrInvalid, number, next)
	}
	if !m.views.holds(number, entries) {
		return entries, nil
	}
	return entries, m.compareView(k, entries)
}

// compareView works out what the page shows from the rows of the layers.
func (m *Map) compareView(k Key, entries []Entry) error {
	v := viewPool.Get().(*view)
	defer viewPool.Put(v)
	v.reset()
	chain := m.Layers.Chain(k.Layer)
	cached, n := m.nearest(chain, k.Page)
	r := rowReader{m: m}
	_, err := r.rows(v, chain[:n], k.Page)
	if r.close(&err); err != nil {
		return err
	}
	v.below(cached, false)
	for i := range v.entries {
		want := v.entries[i]
		if !want.shows() {
			continue
		}
		if want.Own = false; len(entries) == 0 || entries[0] != want {
			return fmt.Errorf("%w: block %d is not as in the layers", format.ErrInvalid, k.Page*PageBlocks+uint64(i))
		}
		entries = entries[1:]
	}
	if len(entries) > 0 {
		return fmt.Errorf("%w: block %d is in none of the layers", format.ErrInvalid, k.Page*PageBlocks+uint64(entries[0].Off))
	}
	return nil
}
