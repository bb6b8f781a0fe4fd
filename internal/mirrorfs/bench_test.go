package mirrorfs

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkReadBlock is a read of a block of a table, on one side alone, and with another that must be able to stand in.
func BenchmarkReadBlock(b *testing.B) {
	for name, n := range map[string]int{"one": 1, "two": 2} {
		b.Run(name, func(b *testing.B) {
			o := Options{Create: true}
			for range n {
				o.Sides = append(o.Sides, Side{vfs.Default, b.TempDir()})
			}
			s := mustOpen(b, o)
			s.fill(b, 1)
			table := tables(b, o.Sides[0])[0]
			f, err := s.m.Open(s.m.PathJoin(s.m.Root(), table), vfs.RandomReadsOption)
			if err != nil {
				b.Fatal(err)
			}
			whole := read(b, s.m, s.m.PathJoin(s.m.Root(), table))
			size := 0
			for size = blockTrailer + 1; !isBlock(whole[:size]); size++ {
			}
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.ReadAt(p, 0); err != nil {
					b.Fatal(err)
				}
			}
			f.Close()
			s.close(b)
		})
	}
}

// BenchmarkFlush is a flush of 200 values of 500 bytes, on one side and on two, of one disk.
func BenchmarkFlush(b *testing.B) {
	for name, n := range map[string]int{"one": 1, "two": 2} {
		b.Run(name, func(b *testing.B) {
			o := Options{Create: true}
			for range n {
				o.Sides = append(o.Sides, Side{vfs.Default, b.TempDir()})
			}
			s := mustOpen(b, o)
			v := uint64(0)
			for b.Loop() {
				v++
				s.fill(b, v)
			}
			s.close(b)
		})
	}
}
