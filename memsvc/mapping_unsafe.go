package memsvc

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapOver maps a file from an offset over memory, which the caller has mapped and will unmap as a whole.
func mapOver(memory []byte, f *os.File, off int64) error {
	_, err := unix.MmapPtr(int(f.Fd()), off, unsafe.Pointer(&memory[0]), uintptr(len(memory)), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED)
	return err
}
