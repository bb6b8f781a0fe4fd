package lsa

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// fullStore is the file system of a metadata store of which another program takes all room.
type fullStore struct {
	vfs.FS
	word string // in the names of the files that find none
	full atomic.Bool
	met  atomic.Int64
}

func newFullStore(fs vfs.FS, word string) *fullStore {
	f := &fullStore{word: word}
	f.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFilePreallocate, errorfs.OpLink, errorfs.OpRename:
			if f.full.Load() && strings.Contains(op.Path, f.word) {
				f.met.Add(1)
				return errors.Join(syscall.ENOSPC, errors.New("of one side"))
			}
		}
		return nil
	}))
	return f
}

// wait waits for something to find it full.
func (f *fullStore) wait(t *testing.T) {
	t.Helper()
	for range 6000 {
		if f.met.Load() > 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("nothing found the file system full")
}

// TestStoreFull takes all room from the metadata store, its reserve included: promise 7. Writes are refused, reads and
// trims go on, and the checkpoint ends when there is room again.
func TestStoreFull(t *testing.T) {
	for _, word := range []string{"", "MANIFEST-"} {
		t.Run(word, func(t *testing.T) {
			r := newRig(t, 2, 40)
			h := r.volume("v", 1<<20)
			page := strings.Repeat("a", 64<<10)
			if err := write(h, 0, []byte(page)); err != nil {
				t.Fatal(err)
			}
			h.Close()
			if err := r.a.Close(); err != nil {
				t.Fatal(err)
			}
			f := newFullStore(r.fs, word)
			o := r.opts
			o.Devices, o.FS, o.Meta = r.devices(), f, "meta"
			var err error
			if r.a, err = Open(context.Background(), o); err != nil {
				t.Fatal(err)
			}
			h = r.handle("v")
			if err := write(h, 64<<10, []byte(page)); err != nil {
				t.Fatal(err)
			}
			f.full.Store(true)
			done := make(chan error)
			go func() { done <- r.a.Checkpoint(context.Background()) }()
			f.wait(t)
			for r.a.ballast.full.Load() == false {
				time.Sleep(time.Millisecond)
			}
			got := make([]byte, len(page))
			if err := h.ReadAt(got, 64<<10); err != nil || string(got) != page {
				t.Fatalf("a read meanwhile: %v", err)
			}
			if err := write(h, 512<<10, []byte(page)); word == "" && !errors.Is(err, ErrNoSpace) {
				t.Fatalf("a write meanwhile: %v", err)
			}
			if err := h.Trim(0, 64<<10); err != nil {
				t.Fatalf("a trim meanwhile: %v", err)
			}
			select {
			case err := <-done:
				t.Fatalf("the checkpoint ended: %v", err)
			default:
			}
			f.full.Store(false)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if err := r.a.ballast.take(); err != nil {
				t.Fatal(err)
			}
			if err := write(h, 512<<10, []byte(page)); err != nil {
				t.Fatalf("a write with room again: %v", err)
			}
			h.Close()
			if err := r.a.Close(); err != nil {
				t.Fatal(err)
			}
			r.open()
			h = r.handle("v")
			defer h.Close()
			if err := h.ReadAt(got, 64<<10); err != nil || string(got) != page {
				t.Fatalf("after it was opened again: %v", err)
			}
		})
	}
}

// TestStoreFullClose closes an array whose metadata store finds no room: it ends, says so, and loses nothing.
func TestStoreFullClose(t *testing.T) {
	for _, word := range []string{"", "MANIFEST-", "marker.manifest"} {
		t.Run(word, func(t *testing.T) {
			r := newRig(t, 2, 40)
			if err := r.a.Close(); err != nil {
				t.Fatal(err)
			}
			f := newFullStore(r.fs, word)
			o := r.opts
			o.Devices, o.FS, o.Meta = r.devices(), f, "meta"
			if word == "marker.manifest" { // it is moved by the first checkpoint, which opening makes
				opened := make(chan error)
				ctx, cancel := context.WithCancel(context.Background())
				f.full.Store(true)
				go func() {
					var err error
					_, err = Open(ctx, o)
					opened <- err
				}()
				f.wait(t)
				cancel()
				if err := <-opened; !errors.Is(err, ErrNoSpace) {
					t.Fatalf("opened without room: %v", err)
				}
				r.open()
				return
			}
			var err error
			if r.a, err = Open(context.Background(), o); err != nil {
				t.Fatal(err)
			}
			h := r.volume("v", 1<<20)
			page := strings.Repeat("b", 64<<10)
			if err := write(h, 0, []byte(page)); err != nil {
				t.Fatal(err)
			}
			h.Close()
			f.full.Store(true)
			r.a.store.Hurry(50 * time.Millisecond)
			if err := r.a.Close(); !errors.Is(err, ErrNoSpace) {
				t.Fatalf("closed without room: %v", err)
			}
			r.open()
			h = r.handle("v")
			defer h.Close()
			got := make([]byte, len(page))
			if err := h.ReadAt(got, 0); err != nil || string(got) != page {
				t.Fatalf("after it was opened again: %v", err)
			}
		})
	}
}

// TestStoreFullCreate makes an array where its metadata store has no room: an error, and no exit.
func TestStoreFullCreate(t *testing.T) {
	for _, word := range []string{"", "MANIFEST-", "marker.manifest", ".sst"} {
		f := newFullStore(vfs.NewMem(), word)
		f.full.Store(true)
		blank := blockdev.NewMem("blank", format.SegmentsOffset+40*rigSegment)
		err := Create(context.Background(), CreateOptions{Devices: []blockdev.Device{blank}, FS: f, Meta: "meta", SegmentSize: rigSegment})
		if !errors.Is(err, ErrNoSpace) {
			t.Errorf("no room for %q: %v", word, err)
		}
	}
}
