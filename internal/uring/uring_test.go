package uring

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestLayout holds the sizes that the kernel expects.
func TestLayout(t *testing.T) {
	for _, c := range []struct {
		what      string
		got, want uintptr
	}{
		{"SQE", unsafe.Sizeof(SQE{}), 64},
		{"SQE.Cmd", unsafe.Offsetof(SQE{}.Cmd), 48},
		{"SQE.UserData", unsafe.Offsetof(SQE{}.UserData), 32},
		{"CQE", unsafe.Sizeof(CQE{}), 16},
		{"params", unsafe.Sizeof(params{}), 120},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.what, c.got, c.want)
		}
	}
}

// newRing makes a ring for the thread of the test.
func newRing(t *testing.T, entries uint32, o Options) *Ring {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	r, err := New(entries, o)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestReads has many reads of a file in flight, several rounds so that the ring wraps, and finds each completed
// once with its own result.
func TestReads(t *testing.T) {
	for _, o := range []Options{{}, {LongCmd: true}, {SingleIssuer: true}} {
		r := newRing(t, 8, o)
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		data := make([]byte, 8*8)
		for i := range 8 {
			binary.LittleEndian.PutUint64(data[8*i:], uint64(i)*1000)
		}
		if _, err := f.Write(data); err != nil {
			t.Fatal(err)
		}
		mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(mem)
		for round := range 5 {
			clear(mem)
			for i := range 8 {
				sqe, err := r.Prepare()
				if err != nil {
					t.Fatal(err)
				}
				sqe.Op, sqe.FD, sqe.Off, sqe.Len = OpRead, int32(f.Fd()), uint64(8*i), 8
				sqe.Addr, sqe.UserData = Address(&mem[8*i]), uint64(100*round+i)
			}
			if _, err := r.Prepare(); !errors.Is(err, errFull) {
				t.Fatalf("a ninth of eight: %v", err)
			}
			seen := map[uint64]bool{}
			for len(seen) < 8 {
				if err := r.Submit(1); err != nil {
					t.Fatal(err)
				}
				for c, ok := r.Next(); ok; c, ok = r.Next() {
					if c.Res != 8 || seen[c.UserData] || c.UserData/100 != uint64(round) {
						t.Fatalf("round %d: %+v", round, c)
					}
					seen[c.UserData] = true
				}
			}
			for i := range 8 {
				if got := binary.LittleEndian.Uint64(mem[8*i:]); got != uint64(i)*1000 {
					t.Fatalf("read %d is %d", i, got)
				}
			}
		}
	}
}

// TestError holds that a request that fails completes with its errno.
func TestError(t *testing.T) {
	r := newRing(t, 1, Options{LongCmd: true})
	sqe, err := r.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	sqe.Op, sqe.FD, sqe.UserData = OpCmd, -1, 7
	sqe.SetCmd(make([]byte, 80))
	if err := r.Submit(1); err != nil {
		t.Fatal(err)
	}
	if c, ok := r.Next(); !ok || c.UserData != 7 || c.Res != -int32(unix.EBADF) {
		t.Errorf("%+v, %v", c, ok)
	}
}
