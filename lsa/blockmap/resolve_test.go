package blockmap

import "testing"

// TestMissReadsWhatItNeeds: a page that is missed is read from the layers that
// have it, down to the first that is in the cache or to where every block of it
// is known.
func TestMissReadsWhatItNeeds(t *testing.T) {
	const pg = 5
	full, head := chainOf(t, 10) // layer 1 has all blocks, and 2 to 11 one each
	save(t, full)
	for _, c := range []struct {
		name   string
		layer  uint64
		cached uint64 // a layer whose page is cached before
		rows   int64
	}{
		{"without snapshots", plain, 0, 1},
		{"nothing cached", head, 0, 11},
		{"an ancestor cached", head, 7, 4},
		{"the next ancestor cached", head, 10, 1},
		{"a child cached", 7, head, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New(full.db, full.Layers, nobody{}, 1<<20)
			var want, got [PageBlocks]Entry
			if err := full.Lookup(c.layer, pg*PageBlocks, want[:]); err != nil {
				t.Fatal(err)
			}
			if c.cached != 0 {
				if err := m.Lookup(c.cached, pg*PageBlocks, got[:1]); err != nil {
					t.Fatal(err)
				}
			}
			before := m.rowsRead.Load()
			if err := m.Lookup(c.layer, pg*PageBlocks, got[:]); err != nil || got != want {
				t.Fatal("not what the cache of the writer has", err)
			}
			if n := m.rowsRead.Load() - before; n != c.rows {
				t.Errorf("read %d rows, want %d", n, c.rows)
			}
		})
	}
	t.Run("all known", func(t *testing.T) {
		if err := full.Pin(Key{9, pg}); err != nil {
			t.Fatal(err)
		}
		full.Zero(9, pg*PageBlocks, PageBlocks, 99)
		full.Unpin(Key{9, pg})
		save(t, full)
		m := New(full.db, full.Layers, nobody{}, 1<<20)
		if err := m.Lookup(head, pg*PageBlocks, make([]Entry, 1)); err != nil || m.rowsRead.Load() != 3 {
			t.Errorf("%v, read %d rows, want 3", err, m.rowsRead.Load())
		}
	})
}

// TestPageLeavesTheCacheMeanwhile: a page that changed, is saved and leaves the
// cache just before resolve looks for it there is not read as it was before.
func TestPageLeavesTheCacheMeanwhile(t *testing.T) {
	m, head := chainOf(t, 2)
	save(t, m)
	evict := func(k Key) {
		if s := m.shard(k); s.pages[k] != nil {
			m.remove(s, s.pages[k])
		}
	}
	evict(Key{head, 0})
	evict(Key{2, 0})
	m.Zero(1, 0, PageBlocks, 99) // pinned since it was made
	m.beforeCache = func() {
		save(t, m)
		evict(Key{1, 0})
	}
	entries, _, err := m.resolve(Key{head, 0})
	if err != nil || len(entries) != PageBlocks {
		t.Fatal(len(entries), err)
	}
	old := 0
	for i := range entries {
		if entries[i].LSN == 1 {
			old++
		}
	}
	if old != 0 {
		t.Errorf("%d blocks are as they were before the change", old)
	}
}
