//go:build linux

package blockdev

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newFile(t testing.TB, size int64, opts FileOptions) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dev")
	if err := CreateFile(path, size); err != nil {
		t.Fatal(err)
	}
	return openFile(t, path, opts)
}

func openFile(t testing.TB, path string, opts FileOptions) *File {
	t.Helper()
	d, err := OpenFile(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return d.(*File)
}

// checkDevice runs random operations on d beside a slice of bytes. exact says
// that the device discards, and reads zeros from then on.
func checkDevice(t *testing.T, d Device, exact bool) {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	rng := newRand(seed)
	size := int(d.Size())
	want := contents(t, d)
	for range 200 {
		off := rng.IntN(size)
		n := rng.IntN(min(size-off, 200_000) + 1)
		var err error
		switch rng.IntN(6) {
		case 0:
			if err = d.Discard(int64(off), int64(n)); err == nil && exact {
				clear(want[off : off+n])
			} else if err == nil {
				err = d.ReadAt(want[off:off+n], int64(off))
			}
		case 1:
			err = d.Allocate(int64(off), int64(n))
		case 2:
			err = d.Sync()
		case 3:
			got := make([]byte, n)
			if err = d.TryReadAt(got, int64(off)); errors.Is(err, ErrWouldBlock) {
				err = d.ReadAt(got, int64(off))
			}
			if !bytes.Equal(got, want[off:off+n]) {
				t.Fatalf("read of %d bytes at %d differs", n, off)
			}
		default:
			b := randomBytes(rng, n)
			copy(want[off:], b)
			err = d.WriteVec(split(rng, b), int64(off))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(contents(t, d), want) {
		t.Fatal("contents differ at the end")
	}
}

func TestFileBehavesLikeBytes(t *testing.T) {
	f := newFile(t, 1<<20+100, FileOptions{})
	checkDevice(t, f, !f.cannotDiscard.Load())
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	want := contents(t, f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(f.Name())
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the file does not hold what the device had: %v", err)
	}
}

func TestMemBehavesLikeBytes(t *testing.T) {
	checkDevice(t, NewMem("m", 1<<20+100), true)
	checkDevice(t, NewDurableMem("m", 1<<20+100), true)
}

// More buffers than one system call takes, and empty ones among them.
func TestFileWriteVecOfManyBuffers(t *testing.T) {
	f := newFile(t, 1<<20, FileOptions{})
	var want []byte
	var bufs [][]byte
	for i := range 3*maxVec + 5 {
		b := bytes.Repeat([]byte{byte(i)}, i%7)
		want, bufs = append(want, b...), append(bufs, b)
	}
	if err := f.WriteVec(bufs, 11); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := f.ReadAt(got, 11); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read back other bytes: %v", err)
	}
	if err := f.WriteVec([][]byte{nil, {}}, 0); err != nil {
		t.Errorf("a write of nothing: %v", err)
	}
}

func TestAdvance(t *testing.T) {
	for n := range 7 {
		bufs := advance([][]byte{{}, {0, 1}, {}, {2}, {3, 4, 5}, {}}, n)
		if got := bytes.Join(bufs, nil); len(got) != 6-n || n < 6 && got[0] != byte(n) {
			t.Errorf("after %d bytes: %v", n, got)
		}
		if len(bufs) > 0 && len(bufs[0]) == 0 {
			t.Errorf("after %d bytes an empty buffer comes first", n)
		}
	}
}

func TestFileIsLocked(t *testing.T) {
	f := newFile(t, 4096, FileOptions{})
	for _, opts := range []FileOptions{{}, {ReadOnly: true}} {
		if _, err := OpenFile(f.Name(), opts); !errors.Is(err, ErrLocked) {
			t.Errorf("a second open with %+v: got %v", opts, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	openFile(t, f.Name(), FileOptions{})
}

func TestFileOpenErrors(t *testing.T) {
	dir := t.TempDir()
	short := filepath.Join(dir, "short")
	if err := CreateFile(short, 1000); err != nil {
		t.Fatal(err)
	}
	if err := CreateFile(short, 2000); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating over a file: got %v", err)
	}
	if st, err := os.Stat(short); err != nil || st.Size() != 1000 || st.Mode().Perm() != 0o600 {
		t.Errorf("the existing file is now %v, %v", st, err)
	}
	if _, err := OpenFile(short, FileOptions{MinSize: 1001}); !errors.Is(err, ErrTruncated) {
		t.Errorf("opening a short file: got %v", err)
	}
	if _, err := OpenFile(filepath.Join(dir, "none"), FileOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening no file: got %v", err)
	}
	if _, err := OpenFile(dir, FileOptions{}); err == nil {
		t.Error("opened a directory")
	}
	if err := CreateFile(filepath.Join(dir, "none", "x"), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("creating in no directory: got %v", err)
	}
	huge := filepath.Join(dir, "huge")
	if err := CreateFile(huge, -1); err == nil {
		t.Error("created a file of negative size")
	}
	if _, err := os.Stat(huge); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a failed create left the file: %v", err)
	}
}

func TestFileErrors(t *testing.T) {
	f := newFile(t, 10_000, FileOptions{})
	b := make([]byte, 10)
	if err := f.ReadAt(b, 9_991); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("read beyond the end: got %v", err)
	}
	if err := f.WriteVec([][]byte{b}, 1<<62); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("write beyond the end: got %v", err)
	}
	if err := os.Truncate(f.Name(), 5000); err != nil {
		t.Fatal(err)
	}
	if err := f.ReadAt(b, 4995); !errors.Is(err, ErrTruncated) {
		t.Errorf("read where the file was cut: got %v", err)
	}
	if err := f.TryReadAt(b, 4995); !errors.Is(err, ErrWouldBlock) {
		t.Errorf("try to read where the file was cut: got %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"ReadAt": f.ReadAt(b, 0), "TryReadAt": f.TryReadAt(b, 0), "WriteVec": f.WriteVec([][]byte{b}, 0),
		"Sync": f.Sync(), "Allocate": f.Allocate(0, 1), "Discard": f.Discard(0, 1), "Close": f.Close(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: got %v", what, err)
		}
	}
	r := openFile(t, f.Name(), FileOptions{ReadOnly: true})
	for what, err := range map[string]error{
		"WriteVec": r.WriteVec([][]byte{b}, 0), "Allocate": r.Allocate(0, 1), "Discard": r.Discard(0, 1),
	} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s of a read-only file: got %v", what, err)
		}
	}
}

// /dev/full stands for a full file system: each write fails with ENOSPC.
func TestFileNoSpace(t *testing.T) {
	fd, err := unix.Open("/dev/full", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no /dev/full: %v", err)
	}
	f := &File{name: "/dev/full", fd: fd, size: 1 << 20}
	defer f.Close()
	err = f.WriteVec([][]byte{{1}}, 0)
	if !errors.Is(err, ErrNoSpace) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

func TestFileSpaceComesBack(t *testing.T) {
	f := newFile(t, 8<<20, FileOptions{})
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Stat(f.Name(), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	if n := blocks(); n > 64<<10 {
		t.Errorf("an empty file takes %d bytes", n)
	}
	if err := f.Allocate(0, 4<<20); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("the file system of the temporary directory cannot allocate")
	} else if err != nil {
		t.Fatal(err)
	}
	if n := blocks(); n < 4<<20 {
		t.Errorf("allocating 4 MiB took %d bytes", n)
	}
	if err := f.Discard(0, 4<<20); err != nil {
		t.Fatal(err)
	}
	if f.cannotDiscard.Load() {
		t.Skip("the file system of the temporary directory cannot punch holes")
	}
	if n := blocks(); n > 64<<10 {
		t.Errorf("%d bytes stay after the discard", n)
	}
}

// Close waits for calls under way, and later ones fail without touching a
// descriptor that may be somebody else's.
func TestFileCloseUnderLoad(t *testing.T) {
	f := newFile(t, 1<<20, FileOptions{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				if err := f.WriteVec([][]byte{make([]byte, 4096)}, 0); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func BenchmarkFile(b *testing.B) {
	f := newFile(b, 64<<20, FileOptions{})
	const n = 4 << 10
	page := make([]byte, n)
	for off := int64(0); off < f.Size(); off += n {
		if err := f.WriteVec([][]byte{page}, off); err != nil {
			b.Fatal(err)
		}
	}
	// A record as lsad writes it: a header and 32 blocks.
	record, consumed := make([][]byte, 33), make([][]byte, 33)
	for i := range record {
		record[i] = page
	}
	run := func(name string, size int64, op func(off int64) error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(size)
			for i := int64(0); b.Loop(); i++ {
				if err := op(i * n % (f.Size() - 64*n)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("ReadAt", n, func(off int64) error { return f.ReadAt(page, off) })
	run("TryReadAt", n, func(off int64) error { return f.TryReadAt(page, off) })
	run("WriteVec", 33*n, func(off int64) error {
		copy(consumed, record)
		return f.WriteVec(consumed, off)
	})
}

// The hot calls make no garbage.
func TestFileDoesNotAllocate(t *testing.T) {
	f := newFile(t, 1<<20, FileOptions{})
	page := make([]byte, 4096)
	record, consumed := make([][]byte, 33), make([][]byte, 33)
	for i := range record {
		record[i] = page
	}
	for name, op := range map[string]func() error{
		"ReadAt":    func() error { return f.ReadAt(page, 0) },
		"TryReadAt": func() error { return f.TryReadAt(page, 0) },
		"Sync":      f.Sync,
		"WriteVec": func() error {
			copy(consumed, record)
			return f.WriteVec(consumed, 0)
		},
	} {
		got := testing.AllocsPerRun(100, func() {
			if err := op(); err != nil && err != ErrWouldBlock {
				t.Fatal(err)
			}
		})
		if got > 0 && !raceEnabled {
			t.Errorf("%s makes %v allocations", name, got)
		}
	}
}

// TestPrefetch: what was asked for comes into the page cache by itself.
func TestPrefetch(t *testing.T) {
	f := newFile(t, 1<<20, FileOptions{})
	page := bytes.Repeat([]byte{7}, 4096)
	for off := int64(0); off < f.Size(); off += 4096 {
		if err := f.WriteVec([][]byte{page}, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(f.fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	const at = 300 << 10
	if f.TryReadAt(page, at) == nil {
		t.Skip("the file system has all its files in memory")
	}
	f.Prefetch(at, 8192)
	for end := time.Now().Add(20 * time.Second); f.TryReadAt(page, at) != nil || f.TryReadAt(page, at+4096) != nil; {
		if time.Now().After(end) {
			t.Fatal("it did not come")
		}
		time.Sleep(time.Millisecond)
	}
	f.Prefetch(f.Size(), 4096) // hints that make no sense harm nobody
	f.Prefetch(-1, 4096)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f.Prefetch(0, 4096)
}
