package guestmem

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkFreePages4GiB maps and walks over a guest of 4 GiB on a file in memory,
// every page of which is resident, split as QEMU's pc machine splits it, with its
// memory map in pages of 4 KiB and about half of it free in blocks of all sizes.
func BenchmarkFreePages4GiB(b *testing.B) {
	s := small()
	s.ranges = [][2]uint64{{0, 3 << 30}, {4 << 30, 1 << 30}}
	s.free = nil
	fd, err := unix.MemfdCreate("guest", 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	const size = 4 << 30
	if err := unix.Ftruncate(fd, size); err != nil {
		b.Fatal(err)
	}
	mmap := func(prot int) []byte {
		data, err := unix.Mmap(fd, 0, size, prot, unix.MAP_SHARED)
		if err != nil {
			b.Fatal(err)
		}
		return data
	}
	built := mmap(unix.PROT_READ | unix.PROT_WRITE)
	for off := 0; off < size; off += PageSize {
		built[off+512] = 1
	}
	s.mem = [][]byte{built[:3<<30], built[3<<30:]}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, r := range s.ranges {
		for gpa := max(r[0], 256<<20); gpa < r[0]+r[1]; gpa += 4 << 20 {
			order := rng.Uint64N(synOrders)
			for at := gpa; at < gpa+4<<20; at += 2 * PageSize << order {
				s.free = append(s.free, block{at, min(order, synOrders-1)})
			}
		}
	}
	s.build(b)
	if err := unix.Munmap(built); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		data := mmap(unix.PROT_READ)
		m, err := NewMemory([]Range{{GPA: 0, Data: data[:3<<30]}, {GPA: 4 << 30, Data: data[3<<30:]}})
		if err != nil {
			b.Fatal(err)
		}
		set, r, err := FreePages(b.Context(), m, Options{})
		if err != nil || set == nil {
			b.Fatalf("%+v, %v", r, err)
		}
		b.ReportMetric(float64(r.Free), "free-pages")
		b.ReportMetric(r.Took.Seconds()*1000, "search-ms")
		if err := unix.Munmap(data); err != nil {
			b.Fatal(err)
		}
	}
}
