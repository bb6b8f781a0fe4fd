package filesource

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lsad/kvmhook"
	"lsad/kvmhook/hooktest"
	"lsad/kvmhook/vmmtest"
)

const (
	page     = 4096
	pages    = 4096
	patience = time.Minute
)

func TestMain(m *testing.M) {
	vmmtest.Main()
	os.Exit(m.Run())
}

// memory writes a sparse file: of 64 pages, the first 32 are a hole.
func memory(t *testing.T) (path string, data []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "memory")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data = make([]byte, pages*page)
	if err := f.Truncate(int64(len(data))); err != nil {
		t.Fatal(err)
	}
	noise := rand.NewChaCha8([32]byte{1})
	for i := 32; i < pages; i += 64 {
		part := data[i*page : (i+32)*page]
		noise.Read(part)
		if _, err := f.WriteAt(part, int64(i)*page); err != nil {
			t.Fatal(err)
		}
	}
	return path, data
}

func open(t *testing.T, path string) *Source {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestZeros(t *testing.T) {
	path, data := memory(t)
	s := open(t, path)
	zeros := int64(0)
	if err := s.Zeros(t.Context(), func(off, n int64) {
		zeros += n
		if len(bytes.Trim(data[off:off+n], "\x00")) > 0 {
			t.Errorf("%d bytes at %d are no zeros", n, off)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if zeros != int64(len(data))/2 {
		t.Skipf("this file system told %d bytes as holes, where %d were left out", zeros, len(data)/2)
	}
}

func TestRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, make([]byte, page+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{empty, short, "/dev/zero", t.TempDir(), empty + ".not"} {
		if s, err := Open(path); !errors.Is(err, kvmhook.ErrSource) {
			t.Errorf("%s: %v, %v", path, s, err)
		}
	}
}

// Many threads touch everything, while parts of it are removed.
func TestServe(t *testing.T) {
	for _, noFill := range []bool{true, false} {
		path, data := memory(t)
		v, _ := hooktest.Serve(t, kvmhook.Options{Source: open(t, path), NoFill: noFill})
		touch := vmmtest.Order{Op: vmmtest.OpTouch, Last: pages, Threads: 6, Stride: 33}
		first, err := v.Begin(touch)
		if err != nil {
			t.Fatal(err)
		}
		removed := func(i int) bool { return i/16%8 == 3 }
		for i := 48; i < pages; i += 128 {
			if _, err := v.Do(vmmtest.Order{Op: vmmtest.OpRemove, First: i, Last: i + 16}, patience); err != nil {
				t.Fatal(err)
			}
		}
		zero := vmmtest.Hash(make([]byte, page))
		check := func(a vmmtest.Answer, err error, late bool) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			for i, h := range a.Hashes {
				want := vmmtest.Hash(data[i*page : (i+1)*page])
				if removed(i) && late {
					want = zero
				}
				// A page that is removed while it is read may be half this and half that.
				if h != want && (late || !removed(i)) {
					t.Fatalf("page %d: wrong content", i)
				}
			}
		}
		a, err := v.Await(first, patience)
		check(a, err, false)
		a, err = v.Do(touch, patience)
		check(a, err, true)
	}
}

// A file that is cut short loses its content: a memory error for the guest, none for the server.
func TestCutShort(t *testing.T) {
	path, _ := memory(t)
	v, _ := hooktest.Serve(t, kvmhook.Options{Source: open(t, path), NoFill: true})
	if err := os.Truncate(path, 40*page); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Do(vmmtest.Order{Op: vmmtest.OpTouch, First: 32, Last: 36}, patience); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Do(vmmtest.Order{Op: vmmtest.OpTouch, First: 100, Last: 101}, patience); !errors.Is(err, vmmtest.ErrEnded) {
		t.Errorf("a lost page was answered: %v", err)
	}
}

// A file is told from one that took its place, and from itself after it was written.
func TestSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memory")
	identity := func(then string) error {
		t.Helper()
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return f.Same(then)
	}
	write := func(to string, at time.Time) {
		t.Helper()
		if err := errors.Join(os.WriteFile(to, make([]byte, 4096), 0o600), os.Chtimes(to, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	then := time.Unix(1e9, 0)
	write(path, then)
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	first := f.Identity()
	if err := identity(first); err != nil {
		t.Error(err)
	}
	write(path, then.Add(time.Second))
	if err := identity(first); !errors.Is(err, kvmhook.ErrSource) {
		t.Errorf("written: %v", err)
	}
	write(path+".new", then)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if err := identity(first); !errors.Is(err, kvmhook.ErrSource) {
		t.Errorf("replaced: %v", err)
	}
}
