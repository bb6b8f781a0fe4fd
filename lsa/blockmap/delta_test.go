package blockmap

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"lsad/lsa/format"
	"lsad/lsa/format/hexfile"
)

// TestGoldenDelta: the value of a delta is the bytes that docs/FORMAT.md says.
func TestGoldenDelta(t *testing.T) {
	entries := []Entry{own(3, KindData, 1000), own(7, KindZero, 5), own(200, KindHole, 900)}
	entries[0].CRC, entries[0].Place[0] = 0xbaadf00d, format.MakePlace(1, 6, 17)
	inherited := Entry{Off: 500, Kind: KindData, LSN: 7, Place: [2]format.Place{9, 0}}
	var m marks
	m.set(3, 2) // there is none at 4
	m.set(200, 1)
	m.set(500, 1)
	p := hexfile.Golden(t, "testdata/delta.hex", "Two entries that are there, and two that are not.", appendDelta(nil, append(entries, inherited), &m), []hexfile.Field{
		{Size: 1, Name: "version"}, {Size: 1, Name: "entries"},
		{Size: 1, Name: "offset +3"}, {Size: 1, Name: "kind: data"}, {Size: 2, Name: "LSN +1000"}, {Size: 4, Name: "checksum"}, {Size: 9, Name: "place: device 1 segment 6 sector 17"},
		{Size: 1, Name: "offset +1"}, {Size: 1, Name: "kind: none"},
		{Size: 2, Name: "offset +196"}, {Size: 1, Name: "kind: hole"}, {Size: 2, Name: "LSN -100"},
		{Size: 2, Name: "offset +300"}, {Size: 1, Name: "kind: none"},
	})
	got, err := decodeDelta(nil, p)
	want := []Entry{entries[0], {Off: 4}, entries[2], {Off: 500}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("read back as\n%+v\nwant\n%+v\n%v", got, want, err)
	}
	if _, err := DecodePage(nil, p); !errors.Is(err, format.ErrInvalid) {
		t.Fatalf("taken for a page: %v", err)
	}
	if _, err := decodeDelta(nil, EncodePage(nil, entries)); !errors.Is(err, format.ErrInvalid) {
		t.Fatalf("a page was taken for a delta: %v", err)
	}
}

// randomDelta changes some of a page's entries and returns what they are then, with the delta.
func randomDelta(rng *rand.Rand, entries []Entry) ([]Entry, []byte) {
	after := map[uint16]Entry{}
	for _, e := range entries {
		after[e.Off] = e
	}
	var m marks
	for range rng.IntN(40) {
		off := uint16(rng.IntN(PageBlocks))
		m.set(off, 1)
		delete(after, off)
		if rng.IntN(3) > 0 {
			after[off] = own(off, KindZero+Kind(rng.IntN(2)), rng.Uint64N(1000))
		}
	}
	var list []Entry
	for off := range uint16(PageBlocks) {
		if e, ok := after[off]; ok {
			list = append(list, e)
		}
	}
	return list, appendDelta(nil, list, &m)
}

// folded is what the merger makes of values, oldest first, cut in two anywhere.
func folded(t *testing.T, rng *rand.Rand, base bool, values [][]byte) []byte {
	t.Helper()
	if len(values) > 2 && rng.IntN(2) == 0 {
		cut := 1 + rng.IntN(len(values)-1)
		low, high := folded(t, rng, base, values[:cut]), folded(t, rng, false, values[cut:])
		values = [][]byte{low, high}
	}
	first, add := 0, pebble.ValueMerger.MergeNewer
	if rng.IntN(2) == 0 {
		first, add = len(values)-1, pebble.ValueMerger.MergeOlder
	}
	m, err := Merger.Merge(nil, values[first])
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(values); i++ {
		at := i
		if first != 0 {
			at = first - i
		}
		if err := add(m, values[at]); err != nil {
			t.Fatal(err)
		}
	}
	v, closer, err := m.Finish(base)
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	return bytes.Clone(v)
}

// TestFold: however the store puts a page and its deltas together, the page is what it was last.
func TestFold(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for range 300 {
		var page []Entry
		var values [][]byte
		if rng.IntN(4) > 0 { // else all that there is came in deltas
			page = randomPage(rng)
			values = append(values, EncodePage(nil, page))
		}
		for range 1 + rng.IntN(6) {
			var delta []byte
			page, delta = randomDelta(rng, page)
			values = append(values, delta)
		}
		got, err := DecodePage(nil, folded(t, rng, true, values))
		if err != nil || len(got) != len(page) || len(page) > 0 && !reflect.DeepEqual(got, page) {
			t.Fatalf("%d values became %+v, want %+v: %v", len(values), got, page, err)
		}
	}
}

// TestFoldDamaged: what cannot be decoded is an error for who reads it, whatever comes on top, and none for the store.
func TestFoldDamaged(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	_, delta := randomDelta(rng, nil)
	for _, bad := range [][]byte{{}, {99}, {deltaVersion}, {deltaVersion, 1}, {pageVersion, 1}, damagedValue} {
		v := folded(t, rng, true, [][]byte{bad, delta, delta})
		if _, err := DecodePage(nil, v); !errors.Is(err, format.ErrInvalid) {
			t.Errorf("%x became a page: %v", bad, err)
		}
	}
	db := newStore(t)
	key := PageKey(Key{1, 1})
	for _, put := range []func() error{
		func() error { return db.Set(key, []byte{99}, pebble.NoSync) }, db.Flush,
		func() error { return db.Merge(key, delta, pebble.NoSync) }, db.Flush,
		func() error { return db.Compact(t.Context(), []byte{0}, []byte{255}, false) },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
	}
	m := New(db, NewLayers([]Layer{{ID: 1}}), nobody{}, 1<<20)
	if err := m.Pin(Key{1, 1}); !errors.Is(err, format.ErrInvalid) {
		t.Fatalf("pinned a damaged page: %v", err)
	}
}

// TestCheckpointStoresDeltas: a page in which one block changed costs a few bytes, unless all is to be stored whole.
func TestCheckpointStoresDeltas(t *testing.T) {
	m, head := chainOf(t, 0)
	save(t, m)
	sizeAfterWrite := func() int {
		for pg := range uint64(benchPages) {
			if err := m.Pin(Key{head, pg}); err != nil {
				t.Fatal(err)
			}
			m.Write(head, pg*PageBlocks+7, 1, 9999, format.MakePlace(2, uint32(pg), 1), 0, func(int) uint32 { return 5 })
			m.Unpin(Key{head, pg})
		}
		c, batch := m.Begin(1), m.db.NewBatch()
		defer batch.Close()
		if err := c.WriteTo(batch); err != nil {
			t.Fatal(err)
		}
		c.Failed()
		return batch.Len()
	}
	if n := sizeAfterWrite(); n > benchPages*64 {
		t.Errorf("%d bytes for %d blocks that changed", n, benchPages)
	}
	if n := sizeAfterWrite(); n < benchPages*1024 { // the checkpoint before failed
		t.Errorf("%d bytes for pages of which the store may have anything", n)
	}
	save(t, m)
	m.StoreWhole(true)
	if n := sizeAfterWrite(); n < benchPages*1024 {
		t.Errorf("%d bytes where pages have to be stored whole", n)
	}
}

// FuzzDelta: what is accepted is a delta, and is the same when stored again; what is put together with it is a page.
func FuzzDelta(f *testing.F) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 4 {
		_, delta := randomDelta(rng, nil)
		f.Add(delta)
	}
	f.Add([]byte{deltaVersion, 2, 3, 1, 2, 0, 0, 0, 0, 8, 1, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		entries, err := decodeDelta(nil, p)
		if err != nil {
			if !errors.Is(err, format.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		var m marks
		for i := range entries {
			e := &entries[i]
			if e.Off >= PageBlocks || i > 0 && e.Off <= entries[i-1].Off || e.Kind > KindHole || e.Own != (e.Kind != KindNone) {
				t.Fatalf("accepted %+v", entries)
			}
			m.set(e.Off, 1)
		}
		again, err := decodeDelta(nil, appendDelta(nil, entries, &m))
		if err != nil || len(again) != len(entries) || len(entries) > 0 && !reflect.DeepEqual(again, entries) {
			t.Fatalf("%+v became %+v, %v", entries, again, err)
		}
		page := EncodePage(nil, []Entry{own(0, KindZero, 1), own(1023, KindHole, 2)})
		if _, err := DecodePage(nil, folded(t, rand.New(rand.NewPCG(1, 1)), true, [][]byte{page, p})); err != nil {
			t.Fatalf("%+v on a page: %v", entries, err)
		}
	})
}
