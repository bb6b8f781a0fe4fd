package blockmap

import (
	"io"
	"math/bits"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Merger puts pages and deltas together, for the metadata store. Its name is that of the store's own default, which
// stores had before there were deltas: they hold nothing that it would ever have been asked for, and names of tables
// cannot be changed.
var Merger = &pebble.Merger{Name: pebble.DefaultMerger.Name, Merge: func(_, value []byte) (pebble.ValueMerger, error) {
	f := folds.Get().(*fold)
	f.reset()
	f.add(value)
	return f, nil
}}

var folds = sync.Pool{New: func() any { return new(fold) }}

// fold collects values of one page, all from the newest on or all from the oldest on.
type fold struct {
	values []byte // one behind the other
	ends   []int  // of each in values
	older  bool   // each is older than the one before it

	page    []Entry // the newest of the values that is one
	whole   bool    // there is one
	damaged bool
	changed marks // of the offsets in deltas that are newer
	entries [PageBlocks]Entry
	decoded []Entry
	out     []byte
}

// damagedValue is what becomes of values one of which cannot be decoded: no page, so that who reads it gets an error, and the
// store can go on compacting the others.
var damagedValue = []byte{0, 0}

func (f *fold) reset() {
	f.values, f.ends, f.older = f.values[:0], f.ends[:0], false
	f.page, f.changed, f.whole, f.damaged = f.page[:0], marks{}, false, false
}

func (f *fold) add(value []byte) {
	f.values = append(f.values, value...)
	f.ends = append(f.ends, len(f.values))
}

// MergeNewer is part of pebble.ValueMerger.
func (f *fold) MergeNewer(value []byte) error {
	f.add(value)
	return nil
}

// MergeOlder is part of pebble.ValueMerger.
func (f *fold) MergeOlder(value []byte) error {
	f.older = true
	f.add(value)
	return nil
}

// Finish is part of pebble.ValueMerger. With the oldest value, or with a page, the result is a page, otherwise a delta.
// It is valid until the closer, which is the fold itself, is closed.
func (f *fold) Finish(includesBase bool) ([]byte, io.Closer, error) {
	for i := range f.ends {
		if f.older {
			i = len(f.ends) - 1 - i
		}
		begin := 0
		if i > 0 {
			begin = f.ends[i-1]
		}
		f.apply(f.values[begin:f.ends[i]])
	}
	f.out = f.appendResult(f.out[:0], includesBase || f.whole)
	return f.out, f, nil
}

// Close gives the fold back.
func (f *fold) Close() error {
	folds.Put(f)
	return nil
}

// apply adds a value that is newer than those before it.
func (f *fold) apply(value []byte) {
	var err error
	if len(value) == 0 || value[0] != deltaVersion {
		f.page, err = DecodePage(f.page[:0], value)
		f.changed, f.whole, f.damaged = marks{}, true, err != nil
		return
	}
	f.decoded, err = decodeDelta(f.decoded[:0], value)
	f.damaged = f.damaged || err != nil
	for i := range f.decoded {
		e := &f.decoded[i]
		f.entries[e.Off] = *e
		f.changed.set(e.Off, 1)
	}
}

func (f *fold) appendResult(b []byte, page bool) []byte {
	if f.damaged {
		return append(b, damagedValue...)
	}
	f.decoded = f.merged(f.decoded[:0])
	if !page {
		return appendDelta(b, f.decoded, &f.changed)
	}
	return EncodePage(b, f.decoded)
}

// merged appends the entries that are there, in order: those of the page, but for what changed.
func (f *fold) merged(entries []Entry) []Entry {
	rest := f.page
	for at, word := range f.changed {
		for ; word != 0; word &= word - 1 {
			e := &f.entries[at*64+bits.TrailingZeros64(word)]
			n, found := slices.BinarySearchFunc(rest, e.Off, func(e Entry, off uint16) int { return int(e.Off) - int(off) })
			entries = append(entries, rest[:n]...)
			if rest = rest[n:]; found {
				rest = rest[1:]
			}
			if e.Kind != KindNone {
				entries = append(entries, *e)
			}
		}
	}
	return append(entries, rest...)
}
