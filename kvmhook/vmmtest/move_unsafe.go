package vmmtest

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// unmap unmaps a part of a mapping.
func unmap(mem []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MUNMAP, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// move moves a mapping to another address, and returns where it is.
func move(mem []byte) ([]byte, error) {
	place, err := unix.Mmap(-1, 0, len(mem), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return mem, err
	}
	_, _, errno := unix.Syscall6(unix.SYS_MREMAP, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(len(mem)),
		unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, uintptr(unsafe.Pointer(&place[0])), 0)
	if errno != 0 {
		return mem, errno
	}
	return place, nil
}
