package blockmap

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

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

// rows adds to the view what the store has of a page in the layers, until all is
// known, and returns at how many it looked.
func (r *rowReader) rows(v *view, layers []uint64, pg uint64) (looked int, err error) {
	for _, layer := range layers {
		if v.known == PageBlocks {
			break
		}
		looked++
		if v.buf, err = r.page(v.buf[:0], Key{layer, pg}); err != nil {
			return 0, err
		}
		v.below(v.buf, false)
	}
	return looked, nil
}
