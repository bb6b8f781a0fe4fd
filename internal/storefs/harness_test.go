package storefs

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// disk is a file system that can lose power, and be full.
type disk struct {
	mem    *vfs.MemFS
	inject atomic.Pointer[func(op errorfs.Op) error]
}

func newDisk(t testing.TB) *disk {
	t.Helper()
	d := &disk{mem: vfs.NewCrashableMem()}
	if err := d.mem.MkdirAll("/store", 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := d.mem.OpenDir("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.Sync(); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) setInject(fn func(op errorfs.Op) error) { d.inject.Store(&fn) }

func (d *disk) fs() vfs.FS {
	return errorfs.Wrap(d.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fn := d.inject.Load(); fn != nil {
			return (*fn)(op)
		}
		return nil
	}))
}

// errFull is as a mirror of two file systems reports it.
var errFull = errors.Join(nil, fmt.Errorf("write: %w", syscall.ENOSPC))

// needsRoom says whether an operation takes room on a disk.
func needsRoom(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpLink, errorfs.OpRename, errorfs.OpMkdirAll:
		return true
	}
	return false
}

// full fails what needs room, of the files that have the word in their names, while it is set.
type full struct {
	word string
	set  atomic.Bool
	met  atomic.Int64
}

func (f *full) inject(op errorfs.Op) error {
	if f.set.Load() && needsRoom(op) && strings.Contains(op.Path, f.word) {
		f.met.Add(1)
		return errFull
	}
	return nil
}

// wait waits for something to find the disk full so many times more.
func (f *full) wait(t testing.TB, times int64) {
	t.Helper()
	want := f.met.Load() + times
	for range 3000 {
		if f.met.Load() >= want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nothing found the disk full")
}

// hasty are options for tests that wait for room.
var hasty = Options{Pause: time.Millisecond, Patience: 5 * time.Millisecond}

func openStore(fs vfs.FS, create bool) (*pebble.DB, error) {
	return pebble.Open("/store", &pebble.Options{
		FS: fs, DisableWAL: true, ErrorIfExists: create, ErrorIfNotExists: !create, FormatMajorVersion: pebble.FormatNewest,
		MemTableSize: 64 << 10, MaxManifestFileSize: 1, L0CompactionThreshold: 2, Logger: logger{fs},
		EventListener: &pebble.EventListener{BackgroundError: func(error) {}},
	})
}

func mustOpen(t testing.TB, fs vfs.FS, create bool) *pebble.DB {
	t.Helper()
	db, err := openStore(fs, create)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// logger ends the test where Pebble ends the process, unless it was given up to wait for room.
type logger struct{ fs vfs.FS }

func (l logger) Infof(string, ...any)  {}
func (l logger) Errorf(string, ...any) {}
func (l logger) Fatalf(format string, args ...any) {
	if fs, ok := l.fs.(*FS); !ok || !fs.GivenUp() {
		panic(fmt.Sprintf(format, args...))
	}
}

func put(t testing.TB, db *pebble.DB, k int) {
	t.Helper()
	if err := db.Set(fmt.Appendf(nil, "key%04d", k), fmt.Appendf(nil, "value%d", k), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
}

// holds checks that the first n keys are there.
func holds(t testing.TB, db *pebble.DB, n int) {
	t.Helper()
	for k := range n {
		v, c, err := db.Get(fmt.Appendf(nil, "key%04d", k))
		if err != nil {
			t.Fatalf("key %d of %d: %v", k, n, err)
		}
		if string(v) != fmt.Sprint("value", k) {
			t.Fatalf("key %d: %q", k, v)
		}
		c.Close()
	}
}
