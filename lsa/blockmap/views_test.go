package blockmap

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"lsad/lsa/format"
	"lsad/lsa/format/hexfile"
)

// segmentLefts are Places of any segments.
type segmentLefts struct {
	mu      sync.Mutex
	numbers map[format.Place]uint64
}

func (l *segmentLefts) clone() *segmentLefts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &segmentLefts{numbers: maps.Clone(l.numbers)}
}

func (l *segmentLefts) Left(p format.Place, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.numbers[p>>24] = number
}

func (l *segmentLefts) LastLeft(p format.Place) (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.numbers[p>>24], true
}

// keeping is a map of the same store with nothing cached.
func keeping(t *testing.T, m *Map, places Places, number uint64) *Map {
	t.Helper()
	c := New(m.db, m.Layers, nobody{}, 1<<20)
	if err := c.KeepViews(places, number, 0); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestViews: a view is kept of what a long chain shows, and is used until a block
// moves away from where it says that it lies.
func TestViews(t *testing.T) {
	const pg = 5
	full, head := chainOf(t, 10)
	save(t, full)
	places := &segmentLefts{numbers: map[format.Place]uint64{}}
	expect := func(what string, m *Map, rows, used int64) {
		t.Helper()
		var want, got [PageBlocks]Entry
		if err := full.Lookup(head, pg*PageBlocks, want[:]); err != nil {
			t.Fatal(err)
		}
		if err := m.Lookup(head, pg*PageBlocks, got[:]); err != nil || got != want {
			t.Fatalf("%s: not what the rows say, %v", what, err)
		}
		if st := m.Stats(); m.rowsRead.Load() != rows || st.ViewsUsed != used {
			t.Fatalf("%s: %d rows read and %d views used, want %d and %d", what, m.rowsRead.Load(), st.ViewsUsed, rows, used)
		}
	}
	m := keeping(t, full, places, 0)
	expect("the first time", m, 11, 0)
	saveAs(t, m, 1)
	m = keeping(t, full, places, 1)
	expect("a view is kept", m, 2, 1)

	if err := full.Pin(Key{4, pg}); err != nil {
		t.Fatal(err)
	}
	e, _, err := full.OwnEntry(4, pg*PageBlocks+uint64(ownOf(t, full, Key{4, pg})))
	if err != nil || !full.Move(4, pg*PageBlocks+uint64(e.Off), e.LSN, e.Place[0], format.MakePlace(3, 9, 9)) {
		t.Fatal("not moved", err)
	}
	places.Left(e.Place[0], 2) // full itself keeps none
	save(t, full)
	m = keeping(t, full, places, 1)
	expect("a block has moved", m, 12, 0)
	if st := m.Stats(); st.ViewsOutdated == 0 {
		t.Fatalf("%+v: no view was found outdated", st)
	}
	m = keeping(t, full, places, 2)
	expect("the same after a checkpoint", m, 12, 0)
	saveAs(t, m, 3)
	m = keeping(t, full, places, 3)
	expect("a new one is kept", m, 2, 1)
}

func saveAs(t *testing.T, m *Map, number uint64) {
	t.Helper()
	c, batch := m.Begin(number), m.db.NewBatch()
	if err := errors.Join(c.WriteTo(batch), m.db.Apply(batch, pebble.NoSync)); err != nil {
		t.Fatal(err)
	}
	c.Done()
}

// ownOf returns the offset of some block that the layer itself has.
func ownOf(t *testing.T, m *Map, k Key) uint16 {
	t.Helper()
	own := m.ownEntries(k)
	if len(own) == 0 {
		t.Fatalf("%v has no entries of its own", k)
	}
	return own[0].Off
}

// TestDamagedView: it is as good as none.
func TestDamagedView(t *testing.T) {
	full, head := chainOf(t, 10)
	save(t, full)
	places := &segmentLefts{numbers: map[format.Place]uint64{}}
	m := keeping(t, full, places, 0)
	var want, got [PageBlocks]Entry
	if err := m.Lookup(head, 0, want[:]); err != nil {
		t.Fatal(err)
	}
	saveAs(t, m, 1)
	key := viewKey(nil, Key{head - 1, 0})
	value, closer, err := m.db.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	value = slices.Clone(value)
	closer.Close()
	for at := 0; at < len(value); at += 1 + at/40 { // more of them where it begins
		damaged := slices.Clone(value)
		damaged[at] ^= 0x41
		if err := m.db.Set(key, damaged, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		found := false
		m := keeping(t, full, places, 1)
		if err := m.CheckViews(func(k Key, err error) error { found = true; return nil }); err != nil {
			t.Fatal(err)
		}
		if !found {
			t.Fatalf("byte %d of a view changed, and the check found nothing", at)
		}
		if _, _, err := decodeView(nil, damaged); err == nil {
			continue // behind the store's own checksums, which would have found it
		}
		if err := m.Lookup(head, 0, got[:]); err != nil || got != want {
			t.Fatalf("byte %d of a view changed: %v", at, err)
		}
	}
}

func TestGoldenView(t *testing.T) {
	v := &view{}
	entries := []Entry{own(3, KindData, 1000), own(4, KindHole, 900), own(200, KindZero, 900), own(1023, KindData, 1000)}
	entries[0].CRC, entries[0].Place[0] = 0x01020304, format.MakePlace(0, 5, 9)
	entries[3].CRC, entries[3].Place = 0x11121314, [2]format.Place{format.MakePlace(0, 5, 17), format.MakePlace(1, 2, 1)}
	v.below(entries, true)
	p := hexfile.Golden(t, "testdata/view.hex", "What a layer shows of a page: data, a zero and data in two copies. A hole is left out.", v.value(300), []hexfile.Field{
		{Size: 1, Name: "version"}, {Size: 2, Name: "number of the checkpoint"}, {Size: 1, Name: "count"},
		{Size: 1, Name: "offset 3"}, {Size: 1, Name: "kind: data"}, {Size: 2, Name: "LSN 1000"}, {Size: 4, Name: "checksum"}, {Size: 4, Name: "place: device 0 segment 5 sector 9"},
		{Size: 2, Name: "offset +197"}, {Size: 1, Name: "kind: zero"}, {Size: 2, Name: "LSN -100"},
		{Size: 2, Name: "offset +823"}, {Size: 1, Name: "kind: data at two places"}, {Size: 2, Name: "LSN +100"}, {Size: 4, Name: "checksum"},
		{Size: 1, Name: "place +8 sectors"}, {Size: 9, Name: "second place: device 1 segment 2 sector 1"},
	})
	number, got, err := decodeView(nil, p)
	if err != nil || number != 300 || len(got) != 3 || got[0].Own || got[2].Place != entries[3].Place {
		t.Fatalf("read back as number %d,\n%+v, %v", number, got, err)
	}
	k := Key{0x0102030405060708, 0x090a0b0c0d0e0f10}
	if key := viewKey(nil, k); string(key) != "r\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10" {
		t.Fatalf("key %x", key)
	}
	if back, err := parseViewKey(viewKey(nil, k)); err != nil || back != k {
		t.Fatalf("key %v became %v, %v", k, back, err)
	}
}

// FuzzView: what is accepted is a view, and shows the same when stored again.
func FuzzView(f *testing.F) {
	v := &view{}
	v.below([]Entry{own(3, KindZero, 7), own(9, KindZero, 8)}, true)
	f.Add(v.value(5))
	f.Fuzz(func(t *testing.T, p []byte) {
		number, entries, err := decodeView(nil, p)
		if err != nil {
			if !errors.Is(err, format.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		v := &view{}
		v.below(entries, false)
		again, got, err := decodeView(nil, v.value(number))
		if err != nil || again != number || len(got) != len(entries) || len(got) > 0 && !reflect.DeepEqual(got, entries) {
			t.Fatalf("accepted %x, number %d, which became %d, %v", p, number, again, err)
		}
	})
}
