package storefs

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestFull holds that a store lives through a disk that is full for any of its files, and loses nothing.
func TestFull(t *testing.T) {
	for _, word := range []string{"MANIFEST-", "marker.manifest", ".sst", ""} {
		t.Run(word, func(t *testing.T) {
			d := newDisk(t)
			f := &full{word: word}
			d.setInject(f.inject)
			fs := New(d.fs(), hasty)
			if err := mustOpen(t, fs, true).Close(); err != nil {
				t.Fatal(err)
			}
			for n := range 10 { // the first flush or compaction after an opening makes a new manifest
				db := mustOpen(t, fs, false)
				put(t, db, n)
				f.set.Store(true)
				flushed := make(chan error)
				go func() { flushed <- db.Flush() }()
				if n == 0 {
					f.wait(t, 20)
				}
				holds(t, db, n+1)
				f.set.Store(false)
				if err := <-flushed; err != nil {
					t.Fatal(err)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
			db := mustOpen(t, New(d.mem.CrashClone(vfs.CrashCloneCfg{}), hasty), false)
			holds(t, db, 10)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestGiveUp closes a store that waits for room: it changes nothing any more, and can be opened when there is room.
func TestGiveUp(t *testing.T) {
	for _, word := range []string{"MANIFEST-", "marker.manifest", ".sst", ""} {
		t.Run(word, func(t *testing.T) {
			d := newDisk(t)
			f := &full{word: word}
			d.setInject(f.inject)
			fs := New(d.fs(), hasty)
			db := mustOpen(t, fs, true)
			put(t, db, 0)
			if err := errors.Join(db.Flush(), db.Close()); err != nil {
				t.Fatal(err)
			}
			db = mustOpen(t, fs, false)
			put(t, db, 1)
			f.set.Store(true)
			if _, err := db.AsyncFlush(); err != nil {
				t.Fatal(err)
			}
			f.wait(t, 20)
			if fs.GivenUp() {
				t.Fatal("given up before anybody was in a hurry")
			}
			fs.Hurry(20 * time.Millisecond)
			<-fs.over
			f.set.Store(false) // too late
			if err := fs.MkdirAll("/store/more", 0o700); err != nil {
				t.Error(err)
			}
			if _, err := d.mem.Stat("/store/more"); err == nil {
				t.Error("a change after it was given up")
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			db = mustOpen(t, New(d.mem, hasty), false)
			holds(t, db, 1)
			put(t, db, 1)
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
			holds(t, db, 2)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestHurryWithRoom holds that a hurry stops nothing where there is room.
func TestHurryWithRoom(t *testing.T) {
	fs := New(newDisk(t).fs(), hasty)
	fs.Hurry(-time.Hour)
	db := mustOpen(t, fs, true)
	put(t, db, 0)
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil || fs.GivenUp() {
		t.Fatalf("%v, given up: %v", err, fs.GivenUp())
	}
}

// TestReserve holds that a reserve that is let go is enough, and that it is told once for each try.
func TestReserve(t *testing.T) {
	d := newDisk(t)
	f := &full{}
	f.set.Store(true)
	d.setInject(f.inject)
	calls := 0
	fs := New(d.fs(), Options{Pause: time.Hour, Full: func() { calls++; f.set.Store(false) }})
	h, err := fs.Create("/store/a", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if calls != 1 {
		t.Errorf("told %d times", calls)
	}
}

// TestFail holds that a file that is not essential fails in time, and that a store on a full disk whose owner does not
// wait fails at once.
func TestFail(t *testing.T) {
	d := newDisk(t)
	f := &full{}
	f.set.Store(true)
	d.setInject(f.inject)
	fs := New(d.fs(), hasty)
	if _, err := fs.Create("/store/000001.sst", vfs.WriteCategoryUnspecified); !IsFull(err) || fs.GivenUp() {
		t.Errorf("a table: %v", err)
	}
	fs = New(d.fs(), Options{Pause: time.Hour})
	fs.Hurry(0)
	if db, err := openStore(fs, true); err == nil {
		db.Close()
	}
	if list, err := d.mem.List("/store"); err != nil || len(list) > 1 || !fs.GivenUp() {
		t.Errorf("a new store: %q, %v; given up: %v", list, err, fs.GivenUp())
	}
}

func TestIsFull(t *testing.T) {
	for err, want := range map[error]bool{
		syscall.ENOSPC: true, syscall.EDQUOT: true, syscall.EIO: false,
		fmt.Errorf("a: %w", errors.Join(syscall.EIO, syscall.ENOSPC)): true,
	} {
		if IsFull(err) != want {
			t.Errorf("IsFull(%v) = %v", err, !want)
		}
	}
}

// lateFS finds at a sync that it has no room, and forgets what it was to write.
type lateFS struct {
	vfs.FS
	fail atomic.Int64
}

type lateFile struct {
	vfs.File
	fs   *lateFS
	data []byte
	disk []byte
}

func (l *lateFS) Create(string, vfs.DiskWriteCategory) (vfs.File, error) {
	return &lateFile{fs: l}, nil
}

func (f *lateFile) Write(p []byte) (int, error) {
	f.data = append(f.data, p...)
	return len(p), nil
}

func (f *lateFile) WriteAt(p []byte, off int64) (int, error) {
	f.data = append(f.data[:off], p...)
	return len(p), nil
}

func (f *lateFile) Sync() error {
	if f.fs.fail.Add(-1) >= 0 {
		f.data = append(f.data[:len(f.disk)], strings.Repeat("?", len(f.data)-len(f.disk))...)
		return fmt.Errorf("sync: %w", syscall.EDQUOT)
	}
	f.disk = append([]byte(nil), f.data...)
	return nil
}

// TestLate holds that what a failed sync may have forgotten is written again.
func TestLate(t *testing.T) {
	l := &lateFS{FS: vfs.NewMem()}
	h, err := New(l, hasty).Create("MANIFEST-000001", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for i := range 4 {
		text := strings.Repeat(fmt.Sprint(i), 10+i)
		want += text
		if _, err := h.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		l.fail.Store(int64(i))
		if err := h.Sync(); err != nil {
			t.Fatal(err)
		}
		if got := string(h.(*essentialFile).File.(*lateFile).disk); got != want {
			t.Fatalf("on the disk: %q, want %q", got, want)
		}
	}
}
