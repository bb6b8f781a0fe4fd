package blockmap

import (
	"io"
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

var folds = sync.Pool{New: func() any { return &fold{decoded: make([]Entry, 0, PageBlocks)} }}

// fold collects values of one page, all from the newest on or all from the oldest on.
type fold struct {
	values []byte // one behind the other
	ends   []int  // of each in values
	older  bool   // each is older than the one before it

	entries [PageBlocks]Entry
	known   marks // of entries
	whole   bool  // entries are all that the page has
	damaged bool
	decoded []Entry
	out     []byte
}

// damagedValue is what becomes of values one of which cannot be decoded: no page, so that who reads it gets an error, and the
// store can go on compacting the others.
var damagedValue = []byte{0, 0}

func (f *fold) reset() {
	f.values, f.ends, f.older = f.values[:0], f.ends[:0], false
	f.known, f.whole, f.damaged = marks{}, false, false
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
	if len(value) > 0 && value[0] == deltaVersion {
		f.decoded, err = decodeDelta(f.decoded[:0], value)
	} else {
		f.decoded, err = DecodePage(f.decoded[:0], value)
		f.known, f.whole = marks{}, true
	}
	f.damaged = f.damaged || err != nil
	for i := range f.decoded {
		e := &f.decoded[i]
		f.entries[e.Off] = *e
		f.known.set(e.Off, 1)
	}
}

func (f *fold) appendResult(b []byte, page bool) []byte {
	if f.damaged {
		return append(b, damagedValue...)
	}
	if !page {
		return appendDelta(b, f.entriesKnown(), &f.known)
	}
	return EncodePage(b, f.entriesKnown())
}

// entriesKnown returns the entries that are there, in order.
func (f *fold) entriesKnown() []Entry {
	f.decoded = f.decoded[:0]
	for off := range uint16(PageBlocks) {
		if f.known.has(off) && f.entries[off].Kind != KindNone {
			f.decoded = append(f.decoded, f.entries[off])
		}
	}
	return f.decoded
}
