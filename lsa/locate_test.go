package lsa

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/internal/direct"
	"lsad/lsa/format"
)

// A snapshot is read from the devices by what Locate tells, while its volume is overwritten, its blocks are moved about
// and the segments that they were in take other data: what comes is what the array reads.
func TestLocate(t *testing.T) {
	const blocks = 600
	dir := t.TempDir()
	uses, err := direct.CreateUses(filepath.Join(dir, "uses"))
	if err != nil {
		t.Fatal(err)
	}
	defer uses.Close()
	var devices []blockdev.Device
	for i := range 2 {
		path := filepath.Join(dir, fmt.Sprintf("dev%d", i))
		if err := blockdev.CreateFile(path, format.SegmentsOffset+40*rigSegment); err != nil {
			t.Fatal(err)
		}
		d, err := blockdev.OpenFile(path, blockdev.FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		devices = append(devices, d)
	}
	fs := vfs.NewMem()
	if err := Create(t.Context(), CreateOptions{Devices: devices, FS: fs, Meta: "meta", SegmentSize: rigSegment}); err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), Options{Devices: devices, FS: fs, Meta: "meta", CheckpointEvery: -1, Uses: uses})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.CreateVolume(t.Context(), "v", 1000*format.BlockSize); err != nil {
		t.Fatal(err)
	}
	h, err := a.OpenVolume("v", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	want := make([]byte, 1000*format.BlockSize)
	rng := rand.New(rand.NewPCG(5, 6))
	write := func(first, n int) []byte {
		t.Helper()
		p := make([]byte, n*format.BlockSize)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		errs := make([]error, 1)
		h.WriteBatch([]int64{int64(first) * format.BlockSize}, [][]byte{p}, errs)
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		return p
	}
	copy(want, write(0, blocks))
	if err := a.Snapshot(t.Context(), "v", "s"); err != nil {
		t.Fatal(err)
	}
	s, err := a.OpenVolume("v@s", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := direct.NewReader(s.Size(), locator(a, uses, s), slog.New(slog.DiscardHandler))
	defer r.Close()

	churn := func() {
		t.Helper()
		write(0, blocks)
		if err := a.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, d := range a.devs() {
			for seg := range d.segs {
				a.append.mu.Lock()
				state, live := d.segs[seg].state, d.segs[seg].live.Load()
				a.append.mu.Unlock()
				if state == segSealed && live > 0 {
					if _, err := a.Collect(t.Context(), int(d.slot), uint32(seg), nil); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if err := a.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	read := func(p []byte, off int64) bool {
		t.Helper()
		if !r.ReadAt(context.Background(), p, off) {
			return false
		}
		if !bytes.Equal(p, want[off:off+int64(len(p))]) {
			t.Errorf("wrong content at %d", off)
		}
		return true
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		rng, p := rand.New(rand.NewPCG(7, 8)), make([]byte, 8*format.BlockSize)
		for {
			select {
			case <-stop:
				return
			default:
				read(p, int64(rng.IntN(993))*format.BlockSize)
			}
		}
	})
	for range 5 {
		churn()
	}
	close(stop)
	wg.Wait()
	all := make([]byte, len(want))
	if read(all, 0); !read(all, 0) {
		t.Error("what was told is of no use, although nothing has changed")
	}
	churn()
	if read(all, 0) {
		t.Error("every block was moved, and all that was told still counts")
	}
	if !read(all, 0) {
		t.Error("not read after asking anew")
	}
	before, _ := uses.Base()
	if _, err := a.RemoveDevice(t.Context(), 0, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if after, ok := uses.Base(); after == before || !ok {
		t.Error("what was told of a device that was removed still counts")
	}
}

// locator is what a server does for a reader of h.
func locator(a *Array, uses *direct.Uses, h *Handle) direct.Locate {
	return func(_ context.Context, off int64, blocks int) (*direct.Answer, error) {
		rows := make([]direct.Row, blocks)
		base, err := h.Locate(off, rows)
		return &direct.Answer{Uses: uses.Path(), Base: base, Devices: a.DeviceNames(), Rows: direct.EncodeRows(nil, rows)}, err
	}
}
