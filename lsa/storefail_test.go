package lsa

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"lsad/internal/blockdev"
	"lsad/internal/storefs"
)

// badStore is the file system of a metadata store whose disk does not take changes of files that have a word in their
// names, so many times.
type badStore struct {
	vfs.FS
	word string
	fail atomic.Int64 // times
	met  atomic.Int64
}

const always = 1 << 40

func newBadStore(fs vfs.FS, word string) *badStore {
	f := &badStore{word: word}
	f.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpLink, errorfs.OpRename, errorfs.OpRemove:
			if strings.Contains(op.Path, f.word) && f.fail.Load() > 0 && f.fail.Add(-1) >= 0 {
				f.met.Add(1)
				return syscall.EIO
			}
		}
		return nil
	}))
	return f
}

// lines counts what is logged.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// openBad closes the rig's array and opens it on a store that can fail.
func openBad(t *testing.T, r *rig, word string) (*badStore, *lines) {
	t.Helper()
	if err := r.a.Close(); err != nil {
		t.Fatal(err)
	}
	f, log := newBadStore(r.fs, word), &lines{}
	o := r.opts
	o.Devices, o.FS, o.Meta, o.Logger = r.devices(), f, "meta", slog.New(slog.NewTextHandler(log, nil))
	var err error
	if r.a, err = Open(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	return f, log
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("never: ", what)
		}
	}
}

// TestStoreFails has the disk of the metadata store fail. The status says so, reads and flushes go on, and writes until
// the log behind it is at its bound; they are I/O errors then, at once. When the disk works again so does all else.
func TestStoreFails(t *testing.T) {
	for _, word := range []string{".sst", "MANIFEST-", ""} {
		t.Run(word, func(t *testing.T) {
			r := newRig(t, 2, 80)
			r.volume("v", 8<<20).Close()
			f, log := openBad(t, r, word)
			h := r.handle("v")
			page := func(i int) []byte { return bytes.Repeat([]byte{byte(i), 7}, 32<<10) }
			if err := write(h, 0, page(0)); err != nil {
				t.Fatal(err)
			}
			f.fail.Store(always)
			r.a.CheckpointSoon()
			eventually(t, "a failure in the status", func() bool { return r.a.Status().Failure != "" })
			if s := r.a.Status().Failure; !strings.Contains(s, "metadata store meta") || !strings.Contains(s, "see to its disk") {
				t.Errorf("the status says %q", s)
			}
			n, err := 1, error(nil)
			for ; n < 120; n++ {
				if err = write(h, int64(n)<<16, page(n)); err != nil {
					break
				}
				if err := h.Flush(); err != nil {
					t.Fatalf("a flush after %d writes: %v", n, err)
				}
			}
			if !errors.Is(err, ErrStoreFailed) || !errors.Is(err, syscall.EIO) || errors.Is(err, ErrNoSpace) {
				t.Fatalf("write %d: %v", n, err)
			}
			if n < 30 {
				t.Errorf("refused after %d writes of 64 KiB, with a bound of 3 MiB", n)
			}
			begin := time.Now()
			for range 20 {
				if err := write(h, 0, page(0)); !errors.Is(err, ErrStoreFailed) {
					t.Fatal(err)
				}
				if err := h.Trim(0, 64<<10); !errors.Is(err, ErrStoreFailed) {
					t.Fatal(err)
				}
			}
			if d := time.Since(begin); d > 5*time.Second {
				t.Errorf("20 writes were refused in %v", d)
			}
			check := func(h *Handle) {
				t.Helper()
				got := make([]byte, 64<<10)
				for i := range n {
					if err := h.ReadAt(got, int64(i)<<16); err != nil || !bytes.Equal(got, page(i)) {
						t.Fatalf("a read of %d: %v", i, err)
					}
				}
			}
			check(h)
			if err := h.Flush(); err != nil {
				t.Fatal(err)
			}
			if told := strings.Count(log.text(), "\n"); told > 30 {
				t.Errorf("%d lines in the log", told)
			}
			f.fail.Store(0)
			eventually(t, "a status without failure", func() bool { return r.a.Status().Failure == "" })
			if err := write(h, 0, page(0)); err != nil {
				t.Fatalf("a write to a store that works again: %v", err)
			}
			if !strings.Contains(log.text(), "can be written again") {
				t.Error("the log does not say that it works again")
			}
			h.Close()
			r.reopen()
			h = r.handle("v")
			defer h.Close()
			check(h)
		})
	}
}

// TestStoreFailsOnce has any single change fail: nothing notices but the log.
func TestStoreFailsOnce(t *testing.T) {
	for _, word := range []string{".sst", "MANIFEST-", "marker."} {
		r := newRig(t, 2, 40)
		f, log := openBad(t, r, word)
		h := r.volume("v", 1<<20)
		for i := range 4 {
			f.fail.Store(1)
			if err := write(h, int64(i)<<16, make([]byte, 64<<10)); err != nil {
				t.Fatal(err)
			}
			if err := r.a.Checkpoint(context.Background()); err != nil {
				t.Fatal(err)
			}
			if s := r.a.Status().Failure; s != "" {
				t.Fatal(s)
			}
		}
		if word != "marker." && f.met.Load() == 0 || f.met.Load() > 0 && !strings.Contains(log.text(), "can be written again") {
			t.Errorf("%q failed %d times; the log: %s", word, f.met.Load(), log.text())
		}
		h.Close()
		r.reopen()
	}
}

// TestStoreFailsClose closes, and opens, an array whose store's disk fails: an error in time, and nothing is lost.
func TestStoreFailsClose(t *testing.T) {
	for _, word := range []string{".sst", "MANIFEST-", ""} {
		t.Run(word, func(t *testing.T) {
			r := newRig(t, 2, 40)
			f, _ := openBad(t, r, word)
			h := r.volume("v", 1<<20)
			page := bytes.Repeat([]byte("c"), 64<<10)
			if err := write(h, 0, page); err != nil {
				t.Fatal(err)
			}
			h.Close()
			f.fail.Store(always)
			r.a.CheckpointSoon()
			eventually(t, "a failure", func() bool { return f.met.Load() > 0 })
			r.a.store.Hurry(50 * time.Millisecond) // it is 10 s otherwise
			begin := time.Now()
			if err := r.a.Close(); !errors.Is(err, ErrStoreFailed) || !strings.Contains(err.Error(), "see to its disk") {
				t.Fatalf("closed without a disk: %v", err)
			}
			if d := time.Since(begin); d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
			o := r.opts
			o.Devices, o.FS, o.Meta = r.devices(), f, "meta"
			begin = time.Now()
			if _, err := Open(context.Background(), o); !errors.Is(err, syscall.EIO) {
				t.Errorf("opened without a disk: %v", err)
			}
			if d := time.Since(begin); d > openPatience+5*time.Second {
				t.Errorf("it took %v", d)
			}
			r.open()
			h = r.handle("v")
			defer h.Close()
			got := make([]byte, len(page))
			if err := h.ReadAt(got, 0); err != nil || !bytes.Equal(got, page) {
				t.Fatalf("after it was opened again: %v", err)
			}
		})
	}
}

// TestStoreFatal has the sync fail that makes the name of a new manifest durable. The process ends, and nothing that was
// acknowledged is lost.
func TestStoreFatal(t *testing.T) {
	r := newRig(t, 2, 40)
	h := r.volume("v", 1<<20)
	page := bytes.Repeat([]byte("d"), 64<<10)
	if err := write(h, 0, page); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	kill := func() {
		r.mems = blockdev.KillAll(rng, r.mems, func() { r.fs = r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}) })
	}
	kill()
	h.Close()
	r.a.Close()
	var marked atomic.Bool
	ended := make(chan error, 1)
	o := r.opts
	o.Devices, o.Meta = r.devices(), "meta"
	o.Fatal = func(err error) { ended <- err; select {} } // as a process that ends does nothing more
	o.FS = errorfs.Wrap(r.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpRemove && strings.Contains(op.Path, "marker.manifest") {
			marked.Store(true)
		}
		if op.Kind == errorfs.OpFileSync && marked.Load() && strings.HasSuffix(op.Path, "meta") {
			return syscall.EIO
		}
		return nil
	}))
	opened := make(chan *Array, 1)
	go func() {
		a, _ := Open(context.Background(), o) // which makes a checkpoint, and with it a new manifest
		opened <- a
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrStoreFailed) || !strings.Contains(err.Error(), "metadata store meta") || strings.Contains(err.Error(), "\n") {
			t.Errorf("it ended with %q", err)
		}
	case <-opened:
		t.Fatal("opened")
	case <-time.After(20 * time.Second):
		t.Fatal("it did not end")
	}
	kill()
	r.open()
	h = r.handle("v")
	defer h.Close()
	got := make([]byte, len(page))
	if err := h.ReadAt(got, 0); err != nil || !bytes.Equal(got, page) {
		t.Fatalf("what was acknowledged: %v", err)
	}
}

// TestStoreHealedOnce: a compaction that failed tells of it when the store may work again already. That is no news, while
// a read that fails in the background is.
func TestStoreHealedOnce(t *testing.T) {
	bad := newBadStore(vfs.NewMem(), "table")
	store := storefs.New(bad, storefs.Options{Pause: time.Millisecond})
	f, err := store.Create("table", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, change := range map[string]func() error{
		"write": func() error { _, err := f.Write([]byte("x")); return err },
		"sync":  f.Sync,
	} {
		bad.fail.Store(1)
		err := change()
		if !errors.Is(err, syscall.EIO) || store.Problem() == nil {
			t.Fatalf("%s: %v, noted %v", name, err, store.Problem())
		}
		store.Healed()
		if backgroundError(store, slog.New(slog.DiscardHandler), fmt.Errorf("compact: %w", err)); store.Problem() != nil {
			t.Errorf("%s: a store that works is said to fail: %v", name, store.Problem().Err)
		}
	}
	if backgroundError(store, slog.New(slog.DiscardHandler), syscall.EIO); store.Problem() == nil {
		t.Error("a read that failed is not noted")
	}
}
