package lsa

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// smallStore is the file system of a metadata store that has little room, while low is set.
type smallStore struct {
	vfs.FS
	low atomic.Bool
}

func (f *smallStore) GetDiskUsage(string) (vfs.DiskUsage, error) {
	if f.low.Load() {
		return vfs.DiskUsage{AvailBytes: 4096, TotalBytes: 1 << 40}, nil
	}
	return vfs.DiskUsage{AvailBytes: 1 << 39, TotalBytes: 1 << 40}, nil
}

// TestStoreLow has too little room left for the metadata store: who is told so looks for room there, not below a device.
func TestStoreLow(t *testing.T) {
	r := newRig(t, 2, 40)
	if err := r.a.Close(); err != nil {
		t.Fatal(err)
	}
	f := &smallStore{FS: r.fs}
	o := r.opts
	o.Devices, o.FS, o.Meta = r.devices(), f, "meta"
	var err error
	if r.a, err = Open(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	h := r.volume("v", 8<<20)
	defer h.Close()
	f.low.Store(true)
	page := make([]byte, 64<<10)
	for off := int64(0); off < 8<<20 && err == nil; off += int64(len(page)) {
		page[0] = byte(off >> 16)
		err = write(h, off, page)
		for _, d := range r.a.Devices() {
			if d.HostFull {
				t.Fatalf("device %d is said to have no room below", d.Slot)
			}
		}
	}
	low := 0
	for _, d := range r.a.Devices() {
		if d.StoreLow {
			low++
		}
	}
	if !errors.Is(err, ErrNoSpace) || low == 0 {
		t.Fatalf("%v, with %d devices that get no segment for want of room for the metadata", err, low)
	}
	f.low.Store(false)
	for range 6000 {
		if err = write(h, 0, page); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("a write with room again: %v", err)
}
