package uffd

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Map returns n bytes of memory of their own, zeroed, at an address that stays: what Copy copies from.
func Map(n int) ([]byte, error) {
	p, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", n, err)
	}
	return p, nil
}

// Unmap gives memory back.
func Unmap(p []byte) error { return unix.Munmap(p) }
