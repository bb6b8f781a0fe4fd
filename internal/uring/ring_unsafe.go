package uring

import (
	"errors"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets at which the parts of a ring are mapped.
const (
	offRings = 0
	offSQEs  = 0x10000000
)

type sqOffsets struct {
	Head, Tail, Mask, Entries, Flags, Dropped, Array, _ uint32
	_                                                   uint64
}

type cqOffsets struct {
	Head, Tail, Mask, Entries, Overflow, CQEs, Flags, _ uint32
	_                                                   uint64
}

// params is struct io_uring_params.
type params struct {
	SQEntries, CQEntries, Flags, CPU, Idle, Features, WQ uint32
	_                                                    [3]uint32
	SQ                                                   sqOffsets
	CQ                                                   cqOffsets
}

// Ring is one io_uring. Make it with New.
type Ring struct {
	fd         int
	long       bool
	rings, sqe []byte // mapped

	sqHead, sqTail, sqMask *uint32 // the kernel takes at head, we put at tail
	cqHead, cqTail, cqMask *uint32 // we take at head, the kernel puts at tail
	cqes                   unsafe.Pointer
	entries                uint32
	prepared               uint32 // our tail, which the kernel has not been shown yet
}

func setup(entries uint32, p *params) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
	if errno != 0 {
		return -1, errno
	}
	unix.CloseOnExec(int(fd))
	return int(fd), nil
}

func enter(fd int, submit, wait, flags uint32) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(fd), uintptr(submit), uintptr(wait), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// mapMemory maps the ring. Kernels that lack the flags of New's options also lack separate mappings.
func (r *Ring) mapMemory(p *params) (err error) {
	size := max(int(p.SQ.Array)+int(p.SQEntries)*4, int(p.CQ.CQEs)+int(p.CQEntries)*int(unsafe.Sizeof(CQE{})))
	if r.rings, err = unix.Mmap(r.fd, offRings, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	if r.sqe, err = unix.Mmap(r.fd, offSQEs, int(p.SQEntries)*r.stride(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	at := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqHead, r.sqTail, r.sqMask = at(p.SQ.Head), at(p.SQ.Tail), at(p.SQ.Mask)
	r.cqHead, r.cqTail, r.cqMask = at(p.CQ.Head), at(p.CQ.Tail), at(p.CQ.Mask)
	r.cqes = unsafe.Pointer(&r.rings[p.CQ.CQEs])
	r.entries = p.SQEntries
	for i := range p.SQEntries {
		*at(p.SQ.Array + 4*i) = i // submission i is always in slot i
	}
	r.prepared = *r.sqTail
	return nil
}

// stride is the distance between submissions, in bytes.
func (r *Ring) stride() int {
	if r.long {
		return 2 * int(unsafe.Sizeof(SQE{}))
	}
	return int(unsafe.Sizeof(SQE{}))
}

// Prepare returns the next submission, zeroed, to be filled in before the next call of Submit.
func (r *Ring) Prepare() (*SQE, error) {
	if r.prepared-atomic.LoadUint32(r.sqHead) >= r.entries {
		return nil, errFull
	}
	at := int(r.prepared&*r.sqMask) * r.stride()
	clear(r.sqe[at : at+r.stride()])
	r.prepared++
	return (*SQE)(unsafe.Pointer(&r.sqe[at])), nil
}

// SetCmd writes the data of a driver command of a ring with LongCmd, at most 80 bytes.
func (s *SQE) SetCmd(data []byte) {
	copy(unsafe.Slice(&s.Cmd[0], 80), data)
}

// publish shows the kernel what was prepared, and returns how many submissions it has not taken.
func (r *Ring) publish() uint32 {
	atomic.StoreUint32(r.sqTail, r.prepared)
	return r.unsubmitted()
}

func (r *Ring) unsubmitted() uint32 { return r.prepared - atomic.LoadUint32(r.sqHead) }

// ready is how many completions can be taken.
func (r *Ring) ready() uint32 { return atomic.LoadUint32(r.cqTail) - *r.cqHead }

// Next takes a completion if there is one.
func (r *Ring) Next() (c CQE, ok bool) {
	head := *r.cqHead
	if head == atomic.LoadUint32(r.cqTail) {
		return c, false
	}
	c = *(*CQE)(unsafe.Add(r.cqes, uintptr(head&*r.cqMask)*unsafe.Sizeof(CQE{})))
	atomic.StoreUint32(r.cqHead, head+1)
	return c, true
}

// Close gives the ring back. What it had in flight is cancelled, perhaps after Close returned.
func (r *Ring) Close() error {
	var errs []error
	for _, m := range [][]byte{r.rings, r.sqe} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	r.rings, r.sqe = nil, nil
	return errors.Join(append(errs, unix.Close(r.fd))...)
}

// Address is the address of a byte for a submission. The memory must not be moved or freed while the kernel
// uses it: it is mapped, or pinned by the caller.
func Address(b *byte) uint64 { return uint64(uintptr(unsafe.Pointer(b))) }
