package lsa

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// BenchmarkReadsWithSnapshots reads 4 KiB at random from a volume with a hundred
// snapshots, and in turns with it from one that was written in the same way and has
// none: with the map in the cache, and with nothing of it there. It reports the times
// and their ratio. The reads of the first rounds, which keep views, do not count.
func BenchmarkReadsWithSnapshots(b *testing.B) {
	for _, c := range []struct {
		name  string
		cache int64
	}{{"cached", 64 << 20}, {"cold", 1}} {
		b.Run(c.name, func(b *testing.B) {
			a := snapshotsArray(b, c.cache)
			rng := rand.New(rand.NewPCG(2, 2))
			handles := []*Handle{openOf(b, a, "none"), openOf(b, a, "many")}
			p := make([]byte, 4096)
			round := func() (took [2]time.Duration) {
				for i, h := range handles {
					at := time.Now()
					for n := range int64(1000) { // each in another page than the one before
						if err := h.ReadAt(p, (n*4<<20+rng.Int64N(1024)*4096)%snapshotsSize); err != nil {
							b.Fatal(err)
						}
					}
					took[i] = time.Since(at)
				}
				return took
			}
			for range 2 {
				round()
				if err := a.Checkpoint(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
			var all [2]time.Duration
			for b.Loop() {
				took := round()
				all[0], all[1] = all[0]+took[0], all[1]+took[1]
			}
			per := func(i int) float64 { return float64(all[i].Nanoseconds()) / float64(b.N) / 1e6 }
			b.ReportMetric(per(0), "us/read-without")
			b.ReportMetric(per(1), "us/read-with")
			b.ReportMetric(per(1)/per(0), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

const snapshotsSize = 256 << 20

// snapshotsArray makes the volumes "none" and "many", which has a hundred snapshots, and
// opens their array anew with so much cache for the map.
func snapshotsArray(b *testing.B, cache int64) *Array {
	b.Helper()
	a, o := benchFiles(b)
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(1, 1))
	data := make([]byte, 1<<20)
	fill(data, rng)
	var handles []*Handle
	for _, name := range []string{"none", "many"} {
		if err := a.CreateVolume(ctx, name, snapshotsSize); err != nil {
			b.Fatal(err)
		}
		h := openOf(b, a, name)
		for off := int64(0); off < snapshotsSize; off += int64(len(data)) {
			mustWrite(b, h, off, data)
		}
		handles = append(handles, h)
	}
	for i := range 100 {
		if err := a.Snapshot(ctx, "many", fmt.Sprint("s", i)); err != nil {
			b.Fatal(err)
		}
		for range 200 {
			off := rng.Int64N(snapshotsSize/4096) * 4096
			for _, h := range handles {
				mustWrite(b, h, off, data[:4096])
			}
		}
	}
	for _, h := range handles {
		h.Close()
	}
	if err := a.Close(); err != nil {
		b.Fatal(err)
	}
	o.MapCache = cache
	a, err := Open(ctx, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.Close() })
	return a
}

func openOf(b *testing.B, a *Array, name string) *Handle {
	b.Helper()
	h, err := a.OpenVolume(name, OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return h
}
