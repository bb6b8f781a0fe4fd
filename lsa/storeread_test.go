package lsa

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"lsad/lsa/format"
)

// TestStoreUnread has the metadata store fail to be read. What the map cache lacks is an I/O error then, and the status
// says why, whatever clients do, until it can be read again; nobody has to ask.
func TestStoreUnread(t *testing.T) {
	r := newRig(t, 1, 160)
	h := r.volume("v", 64<<20)
	data := make([]byte, 2<<20)
	for pg := range int64(8) { // a row each, too long to come with another
		for i := range data {
			data[i] = byte(i>>12)*3 + byte(pg)
		}
		if err := write(h, pg*4<<20, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.a.Close(); err != nil {
		t.Fatal(err)
	}
	var broken atomic.Bool
	log := &lines{}
	o := r.opts
	o.Devices, o.Meta, o.Logger = r.devices(), "meta", slog.New(slog.NewTextHandler(log, nil))
	o.FS = errorfs.Wrap(r.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.Contains(op.Path, ".sst") && (op.Kind == errorfs.OpOpen || op.Kind == errorfs.OpFileRead || op.Kind == errorfs.OpFileReadAt) {
			return syscall.EIO
		}
		return nil
	}))
	var err error
	if r.a, err = Open(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	h = r.handle("v")
	p := make([]byte, format.BlockSize)
	read := func(pg int64) error { return h.ReadAt(p, pg*4<<20) }
	if err := read(0); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := read(4); !errors.Is(err, syscall.EIO) {
		t.Fatalf("read of a page that cannot be had: %v", err)
	}
	if err := read(0); err != nil {
		t.Errorf("read of one that the cache has: %v", err)
	}
	for _, s := range []string{r.a.Status().Failure, r.a.Status().StoreFailure} {
		if !strings.Contains(s, "metadata store meta") || !strings.Contains(s, "cannot be read since") || !strings.Contains(s, "page 4") {
			t.Errorf("the status says %q", s)
		}
	}
	eventually(t, "a word in the log", func() bool { return strings.Contains(log.text(), "the metadata store cannot be read") })
	if r.a.Status().Failure == "" {
		t.Error("the status says that all is well")
	}
	broken.Store(false)
	defer func() {
		if t.Failed() {
			t.Logf("%s\n%s", r.a.Status().Failure, log.text())
		}
	}()
	eventually(t, "well again", func() bool {
		r.a.CheckpointSoon() // a compaction may have failed, too: it reads, and counts as a change
		return r.a.Status().Failure == "" && strings.Contains(log.text(), "can be read again")
	})
	if err := read(4); err != nil {
		t.Error(err)
	}
}
