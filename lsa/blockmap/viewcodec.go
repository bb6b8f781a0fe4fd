package blockmap

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"lsad/lsa/format"
)

const (
	viewPrefix  = 'r'
	viewVersion = 1
)

func viewKey(b []byte, k Key) []byte {
	b = append(b, viewPrefix)
	b = binary.BigEndian.AppendUint64(b, k.Layer)
	return binary.BigEndian.AppendUint64(b, k.Page)
}

// viewLayer is where the views of a layer begin.
func viewLayer(layer uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{viewPrefix}, layer)
}

func parseViewKey(b []byte) (Key, error) {
	if len(b) != 17 || b[0] != viewPrefix {
		return Key{}, fmt.Errorf("%w: key of a kept view %x", format.ErrInvalid, b)
	}
	return Key{binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])}, nil
}

// appendView appends the value of a view: a version byte, its number (uvarint),
// then a count and entries as in a page.
func appendView(b []byte, number uint64, v *view) []byte {
	b = append(b, viewVersion)
	b = binary.AppendUvarint(b, number)
	n := 0
	for i := range v.entries {
		if v.entries[i].shows() {
			n++
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	var prev Entry
	for i := range v.entries {
		if e := &v.entries[i]; e.shows() {
			b = appendEntry(b, e, &prev)
		}
	}
	return b
}

func (v *view) value(number uint64) []byte {
	v.encoded = appendView(v.encoded[:0], number, v)
	return bytes.Clone(v.encoded)
}

// shows: the block reads as something that it has a place or a mark for.
func (e *Entry) shows() bool { return e.Kind == KindData || e.Kind == KindZero }

// decodeView appends the entries of a view to dst, as a layer above inherits them.
func decodeView(dst []Entry, b []byte) (number uint64, entries []Entry, err error) {
	if len(b) < 3 || len(b) > maxPageValue || b[0] != viewVersion {
		return 0, nil, badPage("kept view: wrong version or length")
	}
	number, n := binary.Uvarint(b[1:])
	if n <= 0 {
		return 0, nil, badPage("kept view: no number")
	}
	entries, err = decodeEntries(dst, b[1+n:], false, false)
	for i := range entries {
		if entries[i].Kind == KindHole {
			return 0, nil, badPage("kept view: a hole")
		}
	}
	return number, entries, err
}
