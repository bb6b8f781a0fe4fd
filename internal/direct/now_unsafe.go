package direct

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// readNow is preadv2 with RWF_NOWAIT: what the page cache has. x/sys has the call for slices of buffers, which it
// allocates anew.
func readNow(fd int, p []byte, off int64) (int, error) {
	vec := unix.Iovec{Base: unsafe.SliceData(p)}
	vec.SetLen(len(p))
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&vec)), 1, uintptr(off), 0, unix.RWF_NOWAIT)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
