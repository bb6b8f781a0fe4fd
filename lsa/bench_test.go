package lsa

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
)

// benchArray is an array on four sparse files with one volume.
func benchArray(b *testing.B, size int64) *Handle {
	b.Helper()
	a, _ := benchFiles(b)
	if err := a.CreateVolume(context.Background(), "v", size); err != nil {
		b.Fatal(err)
	}
	h, err := a.OpenVolume("v", OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return h
}

// benchFiles is an array on four sparse files, and what it was opened with. It is closed, as
// its devices are, by the end of the benchmark.
func benchFiles(b *testing.B) (*Array, Options) {
	b.Helper()
	dir := b.TempDir()
	var devs []blockdev.Device
	for i := range 4 {
		path := filepath.Join(dir, fmt.Sprint("dev", i))
		if err := blockdev.CreateFile(path, 4<<30); err != nil {
			b.Fatal(err)
		}
		d, err := blockdev.OpenFile(path, blockdev.FileOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { d.Close() })
		devs = append(devs, d)
	}
	meta := filepath.Join(dir, "meta")
	ctx := context.Background()
	if err := Create(ctx, CreateOptions{Devices: devs, FS: vfs.Default, Meta: meta}); err != nil {
		b.Fatal(err)
	}
	o := Options{Devices: devs, FS: vfs.Default, Meta: meta}
	a, err := Open(ctx, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.Close() })
	return a, o
}

const benchSize = 1 << 30

func benchWrite(b *testing.B, depth int) {
	h := benchArray(b, benchSize)
	rng := rand.New(rand.NewPCG(1, 2))
	offs, data, errs := make([]int64, depth), make([][]byte, depth), make([]error, depth)
	for i := range data {
		data[i] = make([]byte, 4096)
	}
	b.SetBytes(int64(depth) * 4096)
	b.ReportAllocs()
	for b.Loop() {
		for i := range offs {
			offs[i] = rng.Int64N(benchSize/4096) * 4096
		}
		h.WriteBatch(offs, data, errs)
		if errs[0] != nil {
			b.Fatal(errs[0])
		}
	}
}

func BenchmarkWriteDepth1(b *testing.B)  { benchWrite(b, 1) }
func BenchmarkWriteDepth32(b *testing.B) { benchWrite(b, 32) }

func BenchmarkRead4K(b *testing.B) {
	h := benchArray(b, benchSize)
	p := make([]byte, 1<<20)
	for off := int64(0); off < benchSize; off += int64(len(p)) {
		if err := write(h, off, p); err != nil {
			b.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		if done, err := h.TryReadAt(p[:4096], rng.Int64N(benchSize/4096)*4096); err != nil || !done {
			b.Fatal(done, err)
		}
	}
}
