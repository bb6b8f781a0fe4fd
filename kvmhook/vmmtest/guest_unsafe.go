package vmmtest

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The guest is real-mode code on a real virtual CPU, in 640 KiB of memory that the hook serves: KVM takes the faults.

const (
	GuestPages = 160 // 640 KiB
	GuestCode  = 8   // page where it begins; it works on those behind
)

// GuestProgram sums the first 128 16-bit words of each page behind its own, tells the sum, writes its segment to the first word
// of each page, sums those and tells that.
var GuestProgram = []byte{
	0x31, 0xDB, // xor bx, bx
	0x31, 0xED, // xor bp, bp
	0xB8, 0x00, 0x09, // mov ax, 0x900
	0x8E, 0xD8, // 1: mov ds, ax
	0x89, 0xC7, // mov di, ax
	0x31, 0xF6, // xor si, si
	0xB9, 0x80, 0x00, // mov cx, 128
	0xFC,       // cld
	0xAD,       // 2: lodsw
	0x01, 0xC3, // add bx, ax
	0x83, 0xD5, 0x00, // adc bp, 0
	0xE2, 0xF8, // loop 2b
	0x89, 0xF8, // mov ax, di
	0x05, 0x00, 0x01, // add ax, 0x100
	0x3D, 0x00, 0xA0, // cmp ax, 0xa000
	0x72, 0xE4, // jb 1b
	0x89, 0xD8, // mov ax, bx
	0xE7, 0x10, // out 0x10, ax
	0x89, 0xE8, // mov ax, bp
	0xE7, 0x12, // out 0x12, ax
	0xB8, 0x00, 0x09, // mov ax, 0x900
	0x8E, 0xD8, // 3: mov ds, ax
	0xA3, 0x00, 0x00, // mov [0], ax
	0x05, 0x00, 0x01, // add ax, 0x100
	0x3D, 0x00, 0xA0, // cmp ax, 0xa000
	0x72, 0xF3, // jb 3b
	0x31, 0xDB, // xor bx, bx
	0xB8, 0x00, 0x09, // mov ax, 0x900
	0x8E, 0xD8, // 4: mov ds, ax
	0x03, 0x1E, 0x00, 0x00, // add bx, [0]
	0x05, 0x00, 0x01, // add ax, 0x100
	0x3D, 0x00, 0xA0, // cmp ax, 0xa000
	0x72, 0xF2, // jb 4b
	0x89, 0xD8, // mov ax, bx
	0xE7, 0x14, // out 0x14, ax
	0xF4, // hlt
}

// KVM's interface (include/uapi/linux/kvm.h).
const (
	kvmCreateVM      = 0xAE01
	kvmVCPUMapSize   = 0xAE04
	kvmCreateVCPU    = 0xAE41
	kvmSetUserMemory = 0x4020AE46
	kvmRun           = 0xAE80
	kvmSetRegs       = 0x4090AE82
	kvmGetSregs      = 0x8138AE83
	kvmSetSregs      = 0x4138AE84

	kvmExitIO  = 2
	kvmExitHLT = 5
)

func kvmIoctl(fd int, request, arg uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, arg)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, fmt.Errorf("kvm ioctl %#x: %w", request, errno)
		}
		return int(n), nil
	}
}

// runGuest runs the program in mem, in the VMM's process, until it halts.
func runGuest(mem []byte) (a Answer, err error) {
	runtime.LockOSThread() // a virtual CPU belongs to a thread
	kvm, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return a, err
	}
	defer unix.Close(kvm)
	vm, err := kvmIoctl(kvm, kvmCreateVM, 0)
	if err != nil {
		return a, err
	}
	defer unix.Close(vm)
	slot := struct {
		slot, flags            uint32
		guest, size, userspace uint64
	}{0, 0, 0, uint64(len(mem)), uint64(uintptr(unsafe.Pointer(&mem[0])))}
	if _, err := kvmIoctl(vm, kvmSetUserMemory, uintptr(unsafe.Pointer(&slot))); err != nil {
		return a, err
	}
	cpu, err := kvmIoctl(vm, kvmCreateVCPU, 0)
	if err != nil {
		return a, err
	}
	defer unix.Close(cpu)
	size, err := kvmIoctl(kvm, kvmVCPUMapSize, 0)
	if err != nil {
		return a, err
	}
	run, err := unix.Mmap(cpu, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return a, err
	}
	defer unix.Munmap(run)
	if err := setCPU(cpu); err != nil {
		return a, err
	}
	for {
		if _, err := kvmIoctl(cpu, kvmRun, 0); err != nil {
			return a, err
		}
		switch reason := binary.NativeEndian.Uint32(run[8:]); reason {
		case kvmExitIO:
			port := binary.NativeEndian.Uint16(run[34:])
			value := uint64(binary.NativeEndian.Uint16(run[binary.NativeEndian.Uint64(run[40:]):]))
			switch port {
			case 0x10:
				a.Regs[0] |= value
			case 0x12:
				a.Regs[0] |= value << 16
			case 0x14:
				a.Regs[1] = value
			}
		case kvmExitHLT:
			return a, nil
		default:
			return a, fmt.Errorf("the guest left for reason %d", reason)
		}
	}
}

// setCPU points a virtual CPU at the program.
func setCPU(cpu int) error {
	var sregs [312]byte // struct kvm_sregs; it begins with the code segment: base, limit, selector
	if _, err := kvmIoctl(cpu, kvmGetSregs, uintptr(unsafe.Pointer(&sregs))); err != nil {
		return err
	}
	binary.NativeEndian.PutUint64(sregs[0:], 0)
	binary.NativeEndian.PutUint16(sregs[12:], 0)
	if _, err := kvmIoctl(cpu, kvmSetSregs, uintptr(unsafe.Pointer(&sregs))); err != nil {
		return err
	}
	var regs [18]uint64 // struct kvm_regs; the last two are rip and rflags
	regs[16], regs[17] = GuestCode*SmallPage, 2
	_, err := kvmIoctl(cpu, kvmSetRegs, uintptr(unsafe.Pointer(&regs)))
	return err
}
