package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// flushesIO tells the kernel, once, that this process serves disks of its own machine: so that for memory that it asks
// for the kernel does not wait until something is written to such a disk, which would wait for this process in turn;
// and so that it is not held back for what others wrote to them (PR_SET_IO_FLUSHER).
//
// The setting is one of each thread, which threads inherit from the one that makes them. It is set for all at once,
// which the Go runtime does only in programs without cgo, as lsad is built.
func (l *localDisks) flushesIO() {
	l.flusher.Do(func() {
		_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0)
		switch errno {
		case 0:
		case unix.EPERM:
			l.server.log.Warn("with little memory a local disk may hang: the server lacks CAP_SYS_RESOURCE, which keeps it from waiting for its own disks")
		default:
			l.server.log.Warn("with little memory a local disk may hang: the server could not be kept from waiting for its own disks", "error", errno)
		}
	})
}
