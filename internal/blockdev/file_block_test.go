//go:build linux

package blockdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// newLoop makes a loop device over a sparse file, or skips the test.
func newLoop(t *testing.T, size int64) (device, backing string) {
	t.Helper()
	backing = filepath.Join(t.TempDir(), "backing")
	if err := CreateFile(backing, size); err != nil {
		t.Fatal(err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs root and loop devices: %v", err)
	}
	defer control.Close()
	file, err := os.OpenFile(backing, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		t.Skipf("no free loop device: %v", err)
	}
	device = fmt.Sprintf("/dev/loop%d", n)
	loop, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
			t.Error(err)
		}
		loop.Close()
	})
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(file.Fd())); err != nil {
		t.Skipf("cannot set up a loop device: %v", err)
	}
	return device, backing
}

func TestBlockDevice(t *testing.T) {
	const size = 4 << 20
	path, backing := newLoop(t, size)
	f := openFile(t, path, FileOptions{MinSize: size})
	if f.Size() != size || !f.block {
		t.Fatalf("size %d, block device %v", f.Size(), f.block)
	}
	if _, err := OpenFile(path, FileOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second open: got %v", err)
	}
	checkDevice(t, f, false)

	if err := f.WriteVec([][]byte{randomBytes(newRand(1), size)}, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Discard(100, size-200); err != nil {
		t.Fatal(err)
	}
	if f.cannotDiscard.Load() {
		t.Skip("the loop device cannot discard")
	}
	var st unix.Stat_t
	if err := unix.Stat(backing, &st); err != nil || st.Blocks*512 > size/4 {
		t.Errorf("after the discard the backing file takes %d bytes (%v)", st.Blocks*512, err)
	}
	edge := make([]byte, 100)
	if err := f.ReadAt(edge, size-100); err != nil || string(edge) == string(make([]byte, 100)) {
		t.Errorf("bytes beside the discarded range were lost (%v)", err)
	}
}
