package blockmap

import (
	"encoding/binary"
	"fmt"

	"lsad/lsa/format"
)

// Values of pages: a version byte, a count (uvarint), then each own entry in
// order of its offset: offset less the previous one (uvarint), a byte of kind
// and flags, LSN less the previous one (varint), and for data the checksum
// (4 bytes) and the places, each less the previous entry's (varint).
const (
	pageVersion  = 1
	flagTwo      = 0x80 // a second place follows
	kindMask     = 0x0f
	keyPrefix    = 'm'
	maxPageValue = 64 << 10
)

// PageKey is the key of a page in the metadata store.
func PageKey(k Key) []byte { return appendKey(make([]byte, 0, 17), k) }

func appendKey(b []byte, k Key) []byte {
	b = append(b, keyPrefix)
	b = binary.BigEndian.AppendUint64(b, k.Layer)
	return binary.BigEndian.AppendUint64(b, k.Page)
}

// ParsePageKey is the inverse of PageKey.
func ParsePageKey(b []byte) (Key, error) {
	if len(b) != 17 || b[0] != keyPrefix {
		return Key{}, fmt.Errorf("%w: page key %x", format.ErrInvalid, b)
	}
	return Key{binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])}, nil
}

// EncodePage appends the value that holds the own entries of a page.
func EncodePage(b []byte, entries []Entry) []byte {
	n := 0
	for i := range entries {
		if entries[i].Own {
			n++
		}
	}
	b = append(b, pageVersion)
	b = binary.AppendUvarint(b, uint64(n))
	var prev Entry
	for i := range entries {
		if entries[i].Own {
			b = appendEntry(b, &entries[i], &prev)
		}
	}
	return b
}

// appendEntry appends an entry, and makes prev what the next one is counted from.
func appendEntry(b []byte, e, prev *Entry) []byte {
	b = binary.AppendUvarint(b, uint64(e.Off-prev.Off))
	prev.Off = e.Off
	kind := byte(e.Kind)
	if e.Place[1] != 0 {
		kind |= flagTwo
	}
	b = append(b, kind)
	if e.Kind == KindNone {
		return b
	}
	b = binary.AppendVarint(b, int64(e.LSN-prev.LSN))
	prev.LSN = e.LSN
	if e.Kind == KindData {
		b = binary.LittleEndian.AppendUint32(b, e.CRC)
		b = binary.AppendVarint(b, int64(e.Place[0]-prev.Place[0]))
		prev.Place[0] = e.Place[0]
		if e.Place[1] != 0 {
			b = binary.AppendVarint(b, int64(e.Place[1]-prev.Place[1]))
			prev.Place[1] = e.Place[1]
		}
	}
	return b
}

// DecodePage appends the entries of a value to dst, all marked Own. Errors
// wrap format.ErrInvalid.
func DecodePage(dst []Entry, b []byte) ([]Entry, error) {
	if len(b) < 2 || len(b) > maxPageValue || b[0] != pageVersion {
		return nil, badPage("wrong version or length")
	}
	return decodeEntries(dst, b[1:], true, false)
}

func badPage(what string) error { return fmt.Errorf("%w: map page: %s", format.ErrInvalid, what) }

// decodeEntries appends the counted entries that are all of b, the layer's own or not. In a delta some are none.
func decodeEntries(dst []Entry, b []byte, own, delta bool) ([]Entry, error) {
	bad := func(what string) ([]Entry, error) { return nil, badPage(what) }
	r := reader{b: b}
	n := r.uvarint()
	if n > PageBlocks {
		return bad("more entries than blocks")
	}
	if cap(dst)-len(dst) < int(n) {
		dst = append(make([]Entry, 0, len(dst)+int(n)), dst...)
	}
	var prev Entry
	for i := range n {
		e := Entry{Own: own}
		step := r.uvarint()
		if step >= PageBlocks || step == 0 && i > 0 || uint64(prev.Off)+step >= PageBlocks {
			return bad("offsets out of order")
		}
		e.Off = prev.Off + uint16(step)
		if delta && r.left() > 0 && r.b[r.at] == byte(KindNone) {
			r.at++
			prev.Off, e.Own = e.Off, false
		} else if what := r.entry(&e, &prev); what != "" {
			return bad(what)
		}
		dst = append(dst, e)
	}
	if r.left() != 0 {
		return bad("too long")
	}
	return dst, nil
}

// entry reads what follows the offset of an entry, and makes prev what the next
// one is counted from. It returns what is wrong, "" if nothing is.
func (r *reader) entry(e, prev *Entry) string {
	kind := r.byte()
	e.Kind, e.LSN = Kind(kind&kindMask), prev.LSN+uint64(r.varint())
	prev.Off, prev.LSN = e.Off, e.LSN
	two := kind&flagTwo != 0
	switch {
	case kind&^(kindMask|flagTwo) != 0, two && e.Kind != KindData:
		return "entry with unknown flags"
	case e.Kind == KindData:
		e.CRC = r.uint32()
		e.Place[0] = prev.Place[0] + format.Place(r.varint())
		prev.Place[0] = e.Place[0]
		if two {
			e.Place[1] = prev.Place[1] + format.Place(r.varint())
			prev.Place[1] = e.Place[1]
		}
		if !r.failed && (e.Place[0] == 0 || two && e.Place[1] == 0) {
			return "data at no place"
		}
	case e.Kind != KindZero && e.Kind != KindHole && !r.failed:
		return "entry of unknown kind"
	}
	if r.failed {
		return "cut short"
	}
	return ""
}

// reader takes values off a slice; the first that is not there sets failed. It counts where it is instead of cutting the
// slice, which would be a pointer written for each value.
type reader struct {
	b      []byte
	at     int
	failed bool
}

func (r *reader) left() int { return len(r.b) - r.at }

func (r *reader) uvarint() uint64 {
	if r.at < len(r.b) && r.b[r.at] < 0x80 { // most are short
		r.at++
		return uint64(r.b[r.at-1])
	}
	return r.longUvarint()
}

func (r *reader) longUvarint() uint64 {
	v, n := binary.Uvarint(r.b[r.at:])
	if n <= 0 {
		r.fail()
		return 0
	}
	r.at += n
	return v
}

// varint is zigzag-coded.
func (r *reader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (r *reader) byte() byte {
	if r.left() < 1 {
		r.fail()
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

func (r *reader) uint32() uint32 {
	if r.left() < 4 {
		r.fail()
		return 0
	}
	r.at += 4
	return binary.LittleEndian.Uint32(r.b[r.at-4:])
}

func (r *reader) fail() { r.failed, r.at = true, len(r.b) }
