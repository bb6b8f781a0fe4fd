package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"lsad/internal/nbdclient"
)

// The project's own client, which speaks extended headers as no packaged one does, with many requests in flight.
func TestOwnClient(t *testing.T) {
	var failing atomic.Bool
	r := newRig(t, func(_ *Config, sh *shelf) {
		sh.disks["disk"].Fail = func(op string, off, n int64) error {
			if failing.Load() && op == "read" && off < 4096 {
				return syscall.EIO
			}
			return nil
		}
	})
	data := pattern(testSize, 1)
	clear(data[1<<20 : 3<<20])
	disk := r.shelf.disks["disk"]
	errs := make([]error, 2)
	disk.WriteBatch([]int64{0, 3 << 20}, [][]byte{data[:1<<20], data[3<<20:]}, errs)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testDeadline)
	defer cancel()
	target := nbdclient.Target{Network: "unix", Address: r.path, Export: "disk"}
	c, err := target.Dial(ctx, nbdclient.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if i := c.Info(); !i.Extended || !i.Allocation || i.Size != testSize || i.Description != about["disk"] {
		t.Errorf("%+v", i)
	}
	got := make([]byte, testSize)
	var wg sync.WaitGroup
	const piece = 4096
	for w := range 64 {
		wg.Go(func() {
			for off := w * piece; off < testSize; off += 64 * piece {
				if err := c.ReadAt(ctx, got[off:off+piece], int64(off)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if !bytes.Equal(got, data) {
		t.Error("wrong data")
	}
	extents, err := c.BlockStatus(ctx, 0, testSize, nil)
	if want := fmt.Sprint([]nbdclient.Extent{{Length: 1 << 20}, {Length: 2 << 20, Hole: true, Zero: true}, {Length: 1 << 20}}); err != nil || fmt.Sprint(extents) != want {
		t.Errorf("extents %v, %v; want %s", extents, err, want)
	}
	failing.Store(true)
	if err := c.ReadAt(ctx, got[:8192], 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	if err := c.ReadAt(ctx, got[:8192], 4096); err != nil {
		t.Errorf("after an error: %v", err)
	}
}
