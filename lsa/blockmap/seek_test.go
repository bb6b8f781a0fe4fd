package blockmap

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestRowReader: whatever the order of keys, rows are those that single look-ups find.
func TestRowReader(t *testing.T) {
	seeds := uint64(2)
	if os.Getenv("LSAD_SOAK") != "" {
		seeds = 200
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 77))
		o := storeOptions(vfs.NewMem())
		o.MemTableSize = 256 << 10
		o.L0CompactionThreshold = 2 + rng.IntN(8)
		for i := range o.TargetFileSizes {
			o.TargetFileSizes[i] = 4 << 10
		}
		o.LBaseMaxBytes = 32 << 10
		db, err := pebble.Open("map", o)
		if err != nil {
			t.Fatal(err)
		}
		m := New(db, NewLayers([]Layer{{ID: 1}}), nobody{}, 1)
		const layers, pages = 12, 6
		for range 300 {
			b := db.NewBatch()
			for range 1 + rng.IntN(10) {
				k := Key{1 + rng.Uint64N(layers), rng.Uint64N(pages)}
				var mk marks
				es := []Entry{}
				for off := range uint16(30) {
					if rng.IntN(4) == 0 {
						mk.set(off, 1)
						es = append(es, Entry{Off: off, Own: true, Kind: KindZero, LSN: 1 + rng.Uint64N(1e6)})
					}
				}
				switch rng.IntN(8) {
				case 0, 1, 2:
					b.Merge(appendKey(nil, k), appendDelta(nil, es, &mk), nil)
				case 3, 4:
					b.Set(appendKey(nil, k), EncodePage(nil, es), nil)
				case 5:
					b.Delete(appendKey(nil, k), nil)
				case 6:
					b.Set(viewKey(nil, k), bytes.Repeat([]byte{byte(rng.Uint32())}, 1+rng.IntN(2000)), nil)
				case 7:
					if rng.IntN(10) == 0 {
						b.DeleteRange(viewLayer(k.Layer), viewLayer(k.Layer+1), nil)
					}
				}
			}
			if err := db.Apply(b, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			if rng.IntN(3) == 0 {
				if err := db.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			for range 4 {
				r := rowReader{m: m}
				for range 1 + rng.IntN(6) {
					k := Key{1 + rng.Uint64N(layers), rng.Uint64N(pages)}
					key := appendKey(nil, k)
					if rng.IntN(3) == 0 {
						key = viewKey(nil, k)
					}
					got, err := r.get(key)
					if err != nil {
						t.Fatal(err)
					}
					want, closer, err := db.Get(key)
					if errors.Is(err, pebble.ErrNotFound) {
						want = nil
					} else if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got, want) || (got == nil) != (want == nil) {
						t.Fatalf("seed %d: key %x: %x, want %x", seed, key, got, want)
					}
					if closer != nil {
						closer.Close()
					}
				}
				var err error
				if r.close(&err); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
