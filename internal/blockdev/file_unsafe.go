//go:build linux

package blockdev

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVec is how many buffers one pwritev takes: UIO_MAXIOV of linux/uio.h.
const maxVec = 1024

// iovecs are kept, because the ones that unix.Pwritev makes for each call
// would be garbage at the rate of writes.
var iovecs = sync.Pool{New: func() any { return new([maxVec]unix.Iovec) }}

// pwritev writes as many of the buffers as one system call takes.
func pwritev(fd int, bufs [][]byte, off int64) (int, error) {
	vec := iovecs.Get().(*[maxVec]unix.Iovec)
	n := 0
	for _, b := range bufs {
		if n == maxVec {
			break
		}
		if len(b) == 0 {
			continue
		}
		vec[n].Base = unsafe.SliceData(b)
		vec[n].SetLen(len(b))
		n++
	}
	// The kernel puts the offset together from two halves, the upper one
	// shifted by the width of a long: on 64 bits nothing of it is left.
	written, _, errno := unix.Syscall6(unix.SYS_PWRITEV, uintptr(fd),
		uintptr(unsafe.Pointer(vec)), uintptr(n), uintptr(off), uintptr(off>>32), 0)
	clear(vec[:n]) // the pool must not keep the buffers alive
	iovecs.Put(vec)
	if errno != 0 {
		return 0, errno
	}
	return int(written), nil
}

// discardBlocks discards the whole sectors of a range of a block device. The
// ioctl takes the offset and the length as an array of two (linux/fs.h).
func discardBlocks(fd int, off, n int64) error {
	sector, err := unix.IoctlGetInt(fd, unix.BLKSSZGET)
	if err != nil {
		return err
	}
	mask := int64(sector) - 1
	from, to := (off+mask)&^mask, (off+n)&^mask
	if to <= from {
		return nil
	}
	span := [2]uint64{uint64(from), uint64(to - from)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span)))
	if errno != 0 {
		return errno
	}
	return nil
}
