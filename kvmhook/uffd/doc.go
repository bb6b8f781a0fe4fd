// Package uffd is the kernel's userfaultfd interface: the system call, its ioctls and its messages, without cgo.
//
// It owns a descriptor and nothing else: what to do about a fault is decided elsewhere. Layouts and numbers are those
// of the kernel's include/uapi/linux/userfaultfd.h; what they mean is in userfaultfd(2) and ioctl_userfaultfd(2).
//
// A thread of this process must never touch memory that it has itself registered and has to serve: the runtime may
// have stopped the goroutine that would.
package uffd
