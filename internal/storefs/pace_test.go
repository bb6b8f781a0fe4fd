package storefs

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// TestCompactionsRest: a compaction is given the chance as it writes, nothing else is, and none once the store is to be
// closed.
func TestCompactionsRest(t *testing.T) {
	var rests atomic.Int64
	fs := New(newDisk(t).fs(), Options{Rest: func() { rests.Add(1) }})
	o := &pebble.Options{FS: fs, DisableWAL: true, DisableAutomaticCompactions: true}
	for i := range o.Levels {
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	db, err := pebble.Open("/store", o)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const rows, size = 100, 4 << 10
	fill := func(n int) {
		for i := range rows {
			if err := db.Set(fmt.Appendf(nil, "%03d", i), bytes.Repeat([]byte{byte(n)}, size), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	fill(1)
	fill(2)
	if n := rests.Load(); n != 0 {
		t.Fatalf("rested %d times without a compaction", n)
	}
	compact := func() {
		if err := db.Compact(t.Context(), []byte("0"), []byte("9"), false); err != nil {
			t.Fatal(err)
		}
	}
	compact()
	if n := rests.Load(); n < rows*size/restBytes/2 || n > 2*rows*size/restBytes {
		t.Fatalf("rested %d times while %d bytes were written", n, rows*size)
	}
	fs.Hurry(time.Minute)
	before := rests.Load()
	fill(3)
	compact()
	if n := rests.Load() - before; n != 0 {
		t.Fatalf("rested %d times while the store is waited for", n)
	}
}
