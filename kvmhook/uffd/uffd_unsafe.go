package uffd

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The structures that the ioctls take.
type (
	argAPI      struct{ api, features, ioctls uint64 }
	argRegister struct{ start, length, mode, ioctls uint64 }
	argRange    struct{ start, length uint64 }
	argCopy     struct {
		dst, src, length, mode uint64
		done                   int64
	}
	argFill struct { // UFFDIO_ZEROPAGE and UFFDIO_POISON
		start, length, mode uint64
		done                int64
	}
)

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}

// Open makes a userfaultfd for the memory of this process, with features.
func Open(features uint64) (*FD, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("userfaultfd: %w", errno)
	}
	f := &FD{int(fd)}
	arg := argAPI{api: apiVersion, features: features}
	if err := ioctl(f.fd, ioctlAPI, unsafe.Pointer(&arg)); err != nil {
		f.Close()
		return nil, fmt.Errorf("userfaultfd with features %#x: %w", features, err)
	}
	return f, nil
}

// Register has faults on pages missing in mem, a mapping of this process, wait for whoever serves f.
func (f *FD) Register(mem []byte) error {
	arg := argRegister{start: Address(mem), length: uint64(len(mem)), mode: modeMissing}
	if err := ioctl(f.fd, ioctlRegister, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("userfaultfd: register %d bytes: %w", len(mem), err)
	}
	return nil
}

// Address is where p lies. p must be a mapping; what the runtime allocates may move.
func Address(p []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) }

// Copy puts src at the address dst, whose pages must be missing, and wakes who waits for them, if wake. It returns
// how many bytes were put there, which may be some of them also with an error: unix.EEXIST where a page is there
// already, unix.EAGAIN while the mapping changes (an event waits to be read), unix.ESRCH when the process is gone,
// unix.ENOENT where nothing is registered. src must be from Map.
func (f *FD) Copy(dst uint64, src []byte, wake bool) (int64, error) {
	arg := argCopy{dst: dst, src: Address(src), length: uint64(len(src)), mode: mode(wake)}
	err := ioctl(f.fd, ioctlCopy, unsafe.Pointer(&arg))
	runtime.KeepAlive(src)
	return outcome(arg.done, int64(len(src)), err)
}

// Zero maps pages of zeros at n bytes from dst on. It returns as Copy does, and unix.EINVAL for huge pages.
func (f *FD) Zero(dst uint64, n int64, wake bool) (int64, error) {
	arg := argFill{start: dst, length: uint64(n), mode: mode(wake)}
	err := ioctl(f.fd, ioctlZeropage, unsafe.Pointer(&arg))
	return outcome(arg.done, n, err)
}

// Poison makes n bytes from dst on give a memory error (SIGBUS) to whoever touches them. It returns as Copy does.
func (f *FD) Poison(dst uint64, n int64) (int64, error) {
	arg := argFill{start: dst, length: uint64(n)}
	err := ioctl(f.fd, ioctlPoison, unsafe.Pointer(&arg))
	return outcome(arg.done, n, err)
}

// Wake has whoever waits for a page in n bytes from dst on try again.
func (f *FD) Wake(dst uint64, n int64) error {
	arg := argRange{dst, uint64(n)}
	return ioctl(f.fd, ioctlWake, unsafe.Pointer(&arg))
}

func mode(wake bool) uint64 {
	if wake {
		return 0
	}
	return modeDontWake
}

// outcome makes sense of what an ioctl wrote: how much it did, or a negative error.
func outcome(done, want int64, err error) (int64, error) {
	switch {
	case err == nil:
		return want, nil
	case done < 0 || done > want:
		return 0, err
	}
	return done, err
}

// Resident says whether all of mem, a mapping, is in memory: touching it waits for no disk.
func Resident(mem []byte) bool {
	const page = 4096
	var pages [256]byte
	start := Address(mem) &^ (page - 1)
	for end := Address(mem) + uint64(len(mem)); start < end; start += page * uint64(len(pages)) {
		n := min(end-start, page*uint64(len(pages)))
		if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(start), uintptr(n), uintptr(unsafe.Pointer(&pages))); errno != 0 {
			return false
		}
		for _, p := range pages[:(n+page-1)/page] {
			if p&1 == 0 {
				return false
			}
		}
	}
	return true
}
