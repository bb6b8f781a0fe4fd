package lsa

import (
	"fmt"
	"testing"
)

// TestTrimOfNothing: trims of what was never written log nothing and change no
// page of the map, be they long or short, before and after the map is cached.
func TestTrimOfNothing(t *testing.T) {
	r := newRig(t, 2, 64)
	h := r.volume("other", 1<<40)
	for i := range int64(200) {
		if err := write(h, i<<32, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	h = r.volume("v", 1<<40)
	if err := write(h, 1<<39, make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{4 << 20, 256 << 20, 4 << 30, 1 << 39} {
		lsn, dirty := r.a.committed.Load(), r.a.blocks.Stats().Dirty
		for _, off := range []int64{0, 1 << 38, 1<<39 - size} {
			if off < 0 || off+size > 1<<39 {
				continue
			}
			if err := h.Trim(off, size); err != nil {
				t.Fatal(err)
			}
		}
		if l, d := r.a.committed.Load(), r.a.blocks.Stats().Dirty; l != lsn || d != dirty {
			t.Errorf("trims of %d MiB of nothing: LSN %d was %d, %d bytes of changed pages were %d", size>>20, l, lsn, d, dirty)
		}
	}
	for range 2 { // the second time it is in the cache, empty
		if err := h.Trim(1<<39, 4<<20); err != nil {
			t.Fatal(err)
		}
	}
	lsn := r.a.committed.Load()
	if err := h.Trim(1<<39, 4<<20); err != nil || r.a.committed.Load() != lsn {
		t.Errorf("a trim of what was trimmed: %v, LSN %d was %d", err, r.a.committed.Load(), lsn)
	}
}

// BenchmarkTrimOfNothing trims a fresh volume of 2 TiB in requests of 32 bits,
// as an NBD client does, while 300,000 pages of the map of another are cached.
func BenchmarkTrimOfNothing(b *testing.B) {
	other := benchArray(b, 2<<40)
	const at = 64 // writes at a time
	offs, data, errs := make([]int64, at), make([][]byte, at), make([]error, at)
	for i := range int64(300_000 / at) {
		for j := range offs {
			offs[j], data[j] = (i*at+int64(j))*(4<<20), make([]byte, 4096)
		}
		other.WriteBatch(offs, data, errs)
		for _, err := range errs {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, snapshots := range []int{0, 100} {
		b.Run(fmt.Sprint("snapshots=", snapshots), func(b *testing.B) {
			a, name := other.a, fmt.Sprint("fresh", snapshots)
			if err := a.CreateVolume(b.Context(), name, 2<<40); err != nil {
				b.Fatal(err)
			}
			for i := range snapshots {
				if err := a.Snapshot(b.Context(), name, fmt.Sprint(i)); err != nil {
					b.Fatal(err)
				}
			}
			h, err := a.OpenVolume(name, OpenOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer h.Close()
			const most = 1<<32 - 4096
			for b.Loop() {
				for off := int64(0); off < 2<<40; off += most {
					if err := h.Trim(off, min(most, 2<<40-off)); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
