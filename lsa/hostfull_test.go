package lsa

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"lsad/internal/blockdev"
)

// greedyCollector collects, until stopped, whatever has the most garbage
// whenever a writer wants room.
type greedyCollector struct {
	wanted, done chan struct{}
}

func (g *greedyCollector) SegmentUsed(int, int) {}
func (g *greedyCollector) SpaceWanted()         { kick(g.wanted) }

func (g *greedyCollector) run(ctx context.Context, a *Array) {
	defer close(g.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.wanted:
		}
		for slot := range a.devs() {
			best := SegmentInfo{Live: 1 << 30}
			a.Segments(slot, func(s SegmentInfo) bool {
				if s.State == "sealed" && !s.Damaged && s.Live > 0 && s.Live < best.Live {
					best = s
				}
				return true
			})
			if best.Live < best.Capacity*97/100 {
				_, _ = a.Collect(ctx, slot, best.Segment, nil)
			}
		}
		a.CheckpointSoon()
	}
}

// TestHostFull puts devices and metadata on a file system that is smaller than
// they may grow, and fills it: promises 5 and 8.
func TestHostFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system takes root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=96m"); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	var devs []blockdev.Device
	for i := range 2 {
		path := filepath.Join(dir, fmt.Sprint("dev", i))
		if err := blockdev.CreateFile(path, 256<<20); err != nil {
			t.Fatal(err)
		}
		d, err := blockdev.OpenFile(path, blockdev.FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		devs = append(devs, d)
	}
	ctx := context.Background()
	meta := filepath.Join(dir, "meta")
	if err := Create(ctx, CreateOptions{Devices: devs, FS: vfs.Default, Meta: meta, SegmentSize: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	open := func() (*Array, *Handle, func()) {
		g := &greedyCollector{make(chan struct{}, 1), make(chan struct{})}
		a, err := Open(ctx, Options{Devices: devs, FS: vfs.Default, Meta: meta, Events: g, MapCache: 8 << 20, CheckpointBytes: 8 << 20, CheckpointEvery: -1})
		if err != nil {
			t.Fatal(err)
		}
		collecting, stop := context.WithCancel(ctx)
		go g.run(collecting, a)
		if _, err := a.Volume("v"); err != nil {
			if err := a.CreateVolume(ctx, "v", 400<<20); err != nil {
				t.Fatal(err)
			}
		}
		h, err := a.OpenVolume("v", OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return a, h, func() {
			stop()
			<-g.done
			h.Close()
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	a, h, closeAll := open()

	const chunk = 256 << 10
	fillChunk := func(i, version int) []byte {
		return bytes.Repeat([]byte{byte(i), byte(version), 7, byte(i >> 8)}, chunk/4)
	}
	full := 0
	for ; full < 400<<20/chunk; full++ {
		err := write(h, int64(full)*chunk, fillChunk(full, 0))
		if errors.Is(err, ErrNoSpace) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("full after %d MiB", full*chunk>>20)
	if full*chunk < 32<<20 || full*chunk > 96<<20 {
		t.Fatalf("full after %d MiB on a file system of 96 MiB", full*chunk>>20)
	}
	check := func(h *Handle, from, to, version int) {
		t.Helper()
		got := make([]byte, chunk)
		for i := from; i < to; i++ {
			if err := h.ReadAt(got, int64(i)*chunk); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, fillChunk(i, version)) {
				t.Fatalf("chunk %d is not what was written", i)
			}
		}
	}
	check(h, 0, full, 0)
	if err := h.Trim(0, int64(full/2)*chunk); err != nil {
		t.Fatal("trim of a full array: ", err)
	}
	if err := a.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	// What was trimmed can be written again, more than once.
	for version := 1; version <= 3; version++ {
		for i := 0; i < full/3; i++ {
			if err := write(h, int64(i)*chunk, fillChunk(i, version)); err != nil {
				t.Fatalf("write after a trim made room, version %d, chunk %d: %v", version, i, err)
			}
		}
	}
	check(h, 0, full/3, 3)
	check(h, full/2, full, 0)
	closeAll()
	_, h, closeAll = open()
	check(h, 0, full/3, 3)
	check(h, full/2, full, 0)

	// Filled to the brim again and opened then, when nobody knows any more which
	// segments have their room below, all of it is to be had.
	fill := func(version int) int {
		for i := 0; ; i++ {
			err := write(h, int64(i)*chunk, fillChunk(i, version))
			if errors.Is(err, ErrNoSpace) {
				return i
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(4)
	for version := 5; version <= 8; version++ {
		if version%2 == 1 {
			closeAll()
			a, h, closeAll = open()
		} else { // as if one had waited as long as writers do
			a.append.mu.Lock()
			a.append.gaveUp = true
			a.append.mu.Unlock()
		}
		if err := h.Trim(0, 400<<20); err != nil {
			t.Fatal("trim of a full array: ", err)
		}
		// No writer fails because others waited in vain before the trim.
		again := fill(version)
		check(h, 0, again, version)
		if t.Logf("full after %d MiB", again*chunk>>20); again < full*9/10 {
			t.Fatalf("version %d: after a trim of everything full after %d MiB, and at first after %d MiB", version, again*chunk>>20, full*chunk>>20)
		}
	}
	closeAll()
}
