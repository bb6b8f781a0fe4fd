package lsa

import (
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkScattered reads a MiB at a time of what was written block by block in random order, as a backup of a database
// does: from the page cache, and from devices of which it has nothing.
func BenchmarkScattered(b *testing.B) {
	b.Run("cached", func(b *testing.B) { benchScattered(b, false) })
	b.Run("cold", func(b *testing.B) { benchScattered(b, true) })
}

func benchScattered(b *testing.B, cold bool) {
	const size, step = 256 << 20, 1 << 20
	h := benchArray(b, size)
	rng := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, step)
	for _, block := range rng.Perm(size / 4096) {
		if err := write(h, int64(block)*4096, p[:4096]); err != nil {
			b.Fatal(err)
		}
	}
	if err := h.Flush(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(step)
	b.ReportAllocs()
	for b.Loop() {
		if cold {
			b.StopTimer()
			for _, d := range h.a.devs() {
				dropCached(b, d.dev.Name())
			}
			b.StartTimer()
		}
		if err := h.ReadAt(p, rng.Int64N(size/step)*step); err != nil {
			b.Fatal(err)
		}
	}
}

// dropCached has the page cache forget a file, which has to be synced.
func dropCached(b *testing.B, path string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatal(err)
	}
}
