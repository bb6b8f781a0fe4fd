package blockmap

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"lsad/lsa/format"
	"lsad/lsa/format/hexfile"
)

func own(off uint16, kind Kind, lsn uint64) Entry {
	return Entry{Off: off, Kind: kind, LSN: lsn, Own: true}
}

// TestGoldenPage: the value of a page is the bytes that docs/FORMAT.md says.
func TestGoldenPage(t *testing.T) {
	entries := []Entry{own(3, KindData, 1000), own(4, KindData, 1000), own(200, KindZero, 900), own(201, KindHole, 901), own(1023, KindData, 1001)}
	entries[0].CRC, entries[0].Place[0] = 0xbaadf00d, format.MakePlace(1, 6, 17)
	entries[1].CRC, entries[1].Place[0] = 0xdeadbeef, entries[0].Place[0].After(1)
	entries[4].CRC, entries[4].Place = 0xfeedface, [2]format.Place{format.MakePlace(1, 6, 1), format.MakePlace(0, 5, 1)}
	inherited := Entry{Off: 500, Kind: KindData, LSN: 7, Place: [2]format.Place{1: 0, 0: 9}}
	all := append(append([]Entry(nil), entries[:4]...), inherited, entries[4])

	p := hexfile.Golden(t, "testdata/page.hex", "Five own entries; varints are zigzag-coded differences.", EncodePage(nil, all), []hexfile.Field{
		{Size: 1, Name: "version"}, {Size: 1, Name: "entries"},
		{Size: 1, Name: "offset +3"}, {Size: 1, Name: "kind: data"}, {Size: 2, Name: "LSN +1000"}, {Size: 4, Name: "checksum"}, {Size: 9, Name: "place: device 1 segment 6 sector 17"},
		{Size: 1, Name: "offset +1"}, {Size: 1, Name: "kind: data"}, {Size: 1, Name: "LSN +0"}, {Size: 4, Name: "checksum"}, {Size: 1, Name: "place +8 sectors"},
		{Size: 2, Name: "offset +196"}, {Size: 1, Name: "kind: zero"}, {Size: 2, Name: "LSN -100"},
		{Size: 1, Name: "offset +1"}, {Size: 1, Name: "kind: hole"}, {Size: 1, Name: "LSN +1"},
		{Size: 2, Name: "offset +822"}, {Size: 1, Name: "kind: data at two places"}, {Size: 2, Name: "LSN +100"}, {Size: 4, Name: "checksum"},
		{Size: 1, Name: "place -24 sectors"}, {Size: 4, Name: "second place: device 0 segment 5 sector 1"},
	})
	got, err := DecodePage(nil, p)
	if err != nil || !reflect.DeepEqual(got, entries) {
		t.Fatalf("read back as\n%+v\nwant\n%+v\n%v", got, entries, err)
	}
	k := Key{0x0102030405060708, 0x090a0b0c0d0e0f10}
	if key := PageKey(k); string(key) != "m\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10" {
		t.Fatalf("key %x", key)
	}
	if back, err := ParsePageKey(PageKey(k)); err != nil || back != k {
		t.Fatalf("key %v became %v, %v", k, back, err)
	}
}

func randomPage(rng *rand.Rand) []Entry {
	var entries []Entry
	density := rng.IntN(100) + 1
	for off := range uint16(PageBlocks) {
		if rng.IntN(100) >= density {
			continue
		}
		e := own(off, Kind(1+rng.IntN(3)), rng.Uint64())
		if e.Kind == KindData {
			e.CRC, e.Place[0] = rng.Uint32(), format.Place(1+rng.Uint64N(1<<63))
			if rng.IntN(4) == 0 {
				e.Place[1] = format.Place(1 + rng.Uint64N(1<<63))
			}
		}
		entries = append(entries, e)
	}
	return entries
}

func TestPageRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		want := randomPage(rng)
		p := EncodePage(nil, want)
		if len(p) > maxPageValue {
			t.Fatalf("a page of %d bytes, at most %d can be read", len(p), maxPageValue)
		}
		got, err := DecodePage(nil, p)
		if err != nil || len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%v became %v, %v", want, got, err)
		}
		for range 20 {
			if _, err := DecodePage(nil, p[:rng.IntN(len(p))]); !errors.Is(err, format.ErrInvalid) {
				t.Fatalf("a page cut short: %v", err)
			}
		}
	}
}

func TestBadPages(t *testing.T) {
	data := []byte{1, 1, 3, 1, 2, 0, 0, 0, 0, 8} // one entry: offset 3, data, LSN 1, place 4
	if _, err := DecodePage(nil, data); err != nil {
		t.Fatalf("the page that the others are made from: %v", err)
	}
	set := func(at int, b ...byte) []byte {
		p := append([]byte(nil), data[:at]...)
		p = append(p, b...)
		if at += len(b); at < len(data) {
			p = append(p, data[at:]...)
		}
		return p
	}
	tests := map[string][]byte{
		"empty":                   nil,
		"version":                 set(0, 2),
		"more entries than there": set(1, 2),
		"fewer entries":           set(1, 0),
		"1025 entries":            append([]byte{1, 0x81, 0x08}, data[2:]...),
		"offset beyond":           append([]byte{1, 1, 0x80, 0x08}, data[3:]...),
		"offset that wraps":       append([]byte{1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, data[3:]...),
		"two at one offset":       append(set(1, 2), 0, 2, 0),
		"kind 0":                  set(3, 0),
		"kind 4":                  set(3, 4),
		"unknown flag":            set(3, 0x11),
		"zero at a second place":  {1, 1, 3, 0x82, 2},
		"data nowhere":            set(9, 0),
		"second place nowhere":    append(set(3, 0x81), 0),
		"endless varint":          append(set(9, 0xff), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"too long":                append(set(0, 1), 0),
		"far too long":            append(set(0, 1), make([]byte, maxPageValue)...),
	}
	for name, p := range tests {
		if got, err := DecodePage(nil, p); !errors.Is(err, format.ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, key := range []string{"", "m", "x1234567812345678", "m12345678123456789"} {
		if _, err := ParsePageKey([]byte(key)); !errors.Is(err, format.ErrInvalid) {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

// TestDecodePageAllocates no more than a page has, whatever the count says.
func TestDecodePageAllocates(t *testing.T) {
	hostile := []byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f}
	least := math.Inf(1) // the race detector has fmt allocate more now and then
	for range 20 {
		least = min(least, testing.AllocsPerRun(1, func() { DecodePage(nil, hostile) }))
	}
	if n := least; n > 5 { // the error
		t.Errorf("%v allocations for a page that claims to have 4 billion entries", n)
	}
	p := EncodePage(nil, randomPage(rand.New(rand.NewPCG(2, 2))))
	buf := make([]Entry, 0, PageBlocks)
	if n := testing.AllocsPerRun(10, func() { DecodePage(buf, p) }); n != 0 {
		t.Errorf("%v allocations with room for the entries", n)
	}
}

// FuzzPage: what is accepted is a page, and is the same when stored again.
func FuzzPage(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 4 { // short ones: the fuzzer shrinks what it finds
		page := randomPage(rng)
		f.Add(EncodePage(nil, page[:min(len(page), 6)]))
	}
	f.Add([]byte{1, 1, 3, 1, 2, 0, 0, 0, 0, 8})
	f.Fuzz(func(t *testing.T, p []byte) {
		entries, err := DecodePage(nil, p)
		if err != nil {
			if !errors.Is(err, format.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		for i := range entries {
			if e := &entries[i]; e.Off >= PageBlocks || i > 0 && e.Off <= entries[i-1].Off || !e.Own || e.Kind == KindNone || e.Kind > KindHole {
				t.Fatalf("accepted %+v", entries)
			}
		}
		again, err := DecodePage(nil, EncodePage(nil, entries))
		if err != nil || len(again) != len(entries) || len(entries) > 0 && !reflect.DeepEqual(again, entries) {
			t.Fatalf("%+v became %+v, %v", entries, again, err)
		}
	})
}
