package lsa

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// BenchmarkCheck verifies 256 MiB, written in single blocks all over a volume:
// the most work for each byte.
func BenchmarkCheck(b *testing.B) {
	const size = 256 << 20
	var devices []blockdev.Device
	for _, name := range []string{"a", "b"} {
		devices = append(devices, blockdev.NewDurableMem(name, size))
	}
	fs := vfs.NewMem()
	ctx := context.Background()
	if err := Create(ctx, CreateOptions{Devices: devices, FS: fs, Meta: "meta", SegmentSize: 4 << 20}); err != nil {
		b.Fatal(err)
	}
	o := Options{Devices: devices, FS: fs, Meta: "meta"}
	a, err := Open(ctx, o)
	if err != nil {
		b.Fatal(err)
	}
	if err := a.CreateVolume(ctx, "v", size); err != nil {
		b.Fatal(err)
	}
	h, err := a.OpenVolume("v", OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	block := make([]byte, format.BlockSize)
	for _, i := range rand.New(rand.NewPCG(1, 1)).Perm(size / format.BlockSize) {
		block[0]++
		if err := write(h, int64(i)*format.BlockSize, block); err != nil {
			b.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	for b.Loop() {
		report, err := Check(ctx, o, nil)
		if err != nil || len(report.Problems) > 0 || report.Blocks != size/format.BlockSize {
			b.Fatal(report, err)
		}
	}
}
