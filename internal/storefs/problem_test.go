package storefs

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// bad fails so many changes of files that have the word in their names.
type bad struct {
	word string
	kind errorfs.OpKind
	fail atomic.Int64
}

func (b *bad) inject(op errorfs.Op) error {
	if op.Kind == b.kind && strings.Contains(op.Path, b.word) && b.fail.Load() > 0 {
		b.fail.Add(-1)
		return syscall.EIO
	}
	return nil
}

// TestBadDisk holds that a store lives through a disk that fails for a while, for any change, and loses nothing.
func TestBadDisk(t *testing.T) {
	for _, b := range []*bad{
		{word: "MANIFEST-", kind: errorfs.OpCreate}, {word: "MANIFEST-", kind: errorfs.OpFileWrite}, {word: "MANIFEST-", kind: errorfs.OpFileSync},
		{word: "marker.manifest", kind: errorfs.OpCreate}, {word: "marker.manifest", kind: errorfs.OpRemove},
		{word: ".sst", kind: errorfs.OpCreate}, {word: ".sst", kind: errorfs.OpFileWrite}, {word: ".sst", kind: errorfs.OpFileSyncData},
	} {
		t.Run(b.word, func(t *testing.T) {
			d := newDisk(t)
			d.setInject(b.inject)
			var told atomic.Int64
			o := hasty
			o.Failed = func(*Problem) { told.Add(1) }
			fs := New(d.fs(), o)
			db := mustOpen(t, fs, true)
			for n := range 5 {
				put(t, db, n)
				b.fail.Store(3)
				if err := db.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			if p := fs.Problem(); p == nil || !errors.Is(p.Err, syscall.EIO) || p.Tries < 3 || told.Load() < 3 {
				t.Errorf("%+v after %d calls", p, told.Load())
			}
			b.fail.Store(0)
			if fs.Healed() == nil || fs.Problem() != nil {
				t.Error("not healed")
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db = mustOpen(t, New(d.mem.CrashClone(vfs.CrashCloneCfg{}), hasty), false)
			holds(t, db, 5)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestSyncOnce holds that a sync that failed is not tried again: the next one says nothing.
func TestSyncOnce(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		d := newDisk(t)
		syncs := 0
		d.setInject(func(op errorfs.Op) error {
			if op.Kind != errorfs.OpFileSync {
				return nil
			}
			if syncs++; syncs == 1 {
				return cause
			}
			return nil
		})
		f, err := New(d.fs(), hasty).Create("/store/000001.sst", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); !errors.Is(err, cause) || syncs != 1 {
			t.Errorf("%v after %d syncs", err, syncs)
		}
		f.Close()
	}
}

// TestMarkerSync holds that a directory whose sync fails after a marker was moved ends the process, and not otherwise.
func TestMarkerSync(t *testing.T) {
	for _, name := range []string{"/store/000001.sst", "/store/marker.manifest.000001.MANIFEST-000001"} {
		b := &bad{word: "store", kind: errorfs.OpFileSync}
		d := newDisk(t)
		d.setInject(b.inject)
		o, ended := hasty, false
		o.Fatal = func(error) { ended = true }
		fs := New(d.fs(), o)
		dir, err := fs.OpenDir("/store")
		if err != nil {
			t.Fatal(err)
		}
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		b.fail.Store(1)
		if err := dir.Sync(); !errors.Is(err, syscall.EIO) || ended != strings.Contains(name, "marker") {
			t.Errorf("after %s: %v, ended: %v", name, err, ended)
		}
		dir.Close()
	}
}

// TestFailWithin holds that an opening does not wait for ever for a disk that fails, and that one that recovers is no
// reason to give up.
func TestFailWithin(t *testing.T) {
	b := &bad{word: "MANIFEST-", kind: errorfs.OpFileWrite}
	d := newDisk(t)
	d.setInject(b.inject)
	fs := New(d.fs(), Options{Pause: time.Millisecond})
	fs.FailWithin(20 * time.Millisecond)
	f, err := fs.Create("/store/MANIFEST-000001", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 {
		b.fail.Store(2)
		if _, err := f.Write([]byte("text")); err != nil || fs.GivenUp() {
			t.Fatalf("%v, given up: %v", err, fs.GivenUp())
		}
		fs.Healed()
		time.Sleep(30 * time.Millisecond)
	}
	b.fail.Store(1 << 40)
	if _, err := f.Write([]byte("text")); err != nil || !errors.Is(fs.Why(), syscall.EIO) {
		t.Fatalf("%v, given up for %v", err, fs.Why())
	}
}
