package blockmap

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/lsa/format"
)

// openTables opens a store whose tables are small, so that rows of pages and views lie
// in different ones.
func openTables(t *testing.T, fs vfs.FS) *pebble.DB {
	t.Helper()
	o := storeOptions(fs)
	o.EventListener = &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}}
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = 64 << 10
	}
	db, err := pebble.Open("map", o)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// flipIn flips a bit in the only place in the files of the store that has those bytes.
func flipIn(t *testing.T, fs vfs.FS, want []byte) {
	t.Helper()
	names, err := fs.List("map")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range names {
		f, err := fs.OpenReadWrite("map/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		all := make([]byte, info.Size())
		if _, err := f.ReadAt(all, 0); err != nil && len(all) > 0 {
			t.Fatal(err)
		}
		if at := bytes.Index(all, want); at >= 0 {
			found++
			if _, err := f.WriteAt([]byte{all[at+100] ^ 1}, int64(at+100)); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
	}
	if found != 1 {
		t.Fatalf("the bytes are in %d files", found)
	}
}

// TestDamagedTableOfViews: where the store's own checksum finds a view damaged, the page
// is put together from its rows, which lie in other tables, whatever is cached.
func TestDamagedTableOfViews(t *testing.T) {
	const pg = 14
	full, head := chainOf(t, 10)
	fs := vfs.NewMem()
	db := openTables(t, fs)
	full.db = db
	save(t, full)
	places := newLefts()
	m := keeping(t, full, places, 0)
	for p := range uint64(benchPages) {
		if err := m.Lookup(head, p*PageBlocks, make([]Entry, 1)); err != nil {
			t.Fatal(err)
		}
	}
	saveAs(t, m, 1)
	if err := db.Compact(t.Context(), []byte{keyPrefix}, []byte{viewPrefix + 1}, false); err != nil {
		t.Fatal(err)
	}
	value, closer, err := db.Get(viewKey(nil, Key{head - 1, pg}))
	if err != nil {
		t.Fatal(err)
	}
	begin := bytes.Clone(value[:300])
	closer.Close()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	flipIn(t, fs, begin)
	db = openTables(t, fs)
	defer db.Close()
	var want, got [PageBlocks]Entry
	if err := full.Lookup(head, pg*PageBlocks, want[:]); err != nil { // cached
		t.Fatal(err)
	}
	full.db = db
	for _, cached := range []uint64{0, head - 2, head - 3} {
		m := keeping(t, full, places, 1)
		if cached != 0 {
			if err := m.Lookup(cached, pg*PageBlocks, got[:1]); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Lookup(head, pg*PageBlocks, got[:]); err != nil || got != want {
			t.Errorf("with layer %d cached: %v", cached, err)
		}
		if m.Stats().ViewsOutdated == 0 {
			t.Errorf("with layer %d cached nobody met the damage", cached)
		}
	}
}

// TestNestedSweep: of layers without names, one on the other, that were swept, cached pages
// may differ from the rows where nobody sees them. No view is made of one.
func TestNestedSweep(t *testing.T) {
	layers := []Layer{{ID: 1}, {ID: 2, Parent: 1}, {ID: 3, Parent: 2}, {ID: 4, Parent: 2}, {ID: 5, Parent: 4}, {ID: 6, Parent: 4}, {ID: 8, Parent: 6}, {ID: 9, Parent: 6}}
	places := newLefts()
	m := New(newStore(t), NewLayers(layers), nobody{}, 1<<20)
	if err := m.KeepViews(places, 0, 0); err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		if err := m.Pin(Key{l.ID, 0}); err != nil {
			t.Fatal(err)
		}
		m.Write(l.ID, 5, 1, uint64(i+1), format.MakePlace(0, uint32(l.ID), 9), 0, func(int) uint32 { return 7 })
	}
	saveAs(t, m, 1)
	m.DropHidden(2, []uint64{3, 4}, 0)
	m.DropHidden(4, []uint64{5, 6}, 0)
	m.DropHidden(6, []uint64{8, 9}, 0)
	for _, l := range layers {
		m.Unpin(Key{l.ID, 0})
	}
	saveAs(t, m, 2)
	for _, l := range []uint64{8, 6, 4} { // layer 2 stays
		s := m.shard(Key{l, 0})
		m.remove(s, s.pages[Key{l, 0}])
	}
	if err := m.Lookup(8, 5, make([]Entry, 1)); err != nil {
		t.Fatal(err)
	}
	saveAs(t, m, 3)
	err := keeping(t, m, places, 3).CheckViews(func(k Key, err error) error { return fmt.Errorf("view %v: %w", k, err) })
	if err != nil {
		t.Fatal(err)
	}
}

// TestOver: own entries take the place of those below, whatever room there is.
func TestOver(t *testing.T) {
	rng := newRunner(t, 3, 1<<20).rng
	for range 1000 {
		below, own := randomOffsets(rng.IntN, 1), randomOffsets(rng.IntN, 2)
		want := map[uint16]uint64{}
		for _, e := range append(below[:len(below):len(below)], own...) {
			want[e.Off] = e.LSN
		}
		if rng.IntN(2) == 0 {
			below = append(make([]Entry, 0, PageBlocks), below...)
		}
		got := over(below, own)
		if len(got) != len(want) {
			t.Fatalf("%d entries, want %d", len(got), len(want))
		}
		for i, e := range got {
			if i > 0 && got[i-1].Off >= e.Off || want[e.Off] != e.LSN {
				t.Fatalf("entry %d is %+v, want LSN %d", i, e, want[e.Off])
			}
		}
	}
}

// randomOffsets are entries at some offsets, in order.
func randomOffsets(intN func(int) int, lsn uint64) (entries []Entry) {
	for off, step := 0, 1+intN(40); off < PageBlocks; off += 1 + intN(step) {
		if intN(4) > 0 {
			entries = append(entries, Entry{Off: uint16(off), LSN: lsn, Kind: KindZero})
		}
	}
	return entries
}
