package lsa

import (
	"errors"
	"syscall"
)

// kind is a sentinel that also is a system error number, so that protocols
// can answer with the right code without knowing this package.
type kind struct {
	text  string
	errno syscall.Errno
}

func (k *kind) Error() string { return k.text }

// Unwrap lets errors.Is and errors.As find the number.
func (k *kind) Unwrap() error { return k.errno }

// Sentinels. Those of type kind match a syscall.Errno as well.
var (
	// ErrNoSpace (ENOSPC): the array, or the file system below it, is full.
	// Trims and deletes make room.
	ErrNoSpace error = &kind{"no space left in the array", syscall.ENOSPC}
	// ErrReadOnly (EPERM): a write to a snapshot or a read-only handle.
	ErrReadOnly error = &kind{"read-only", syscall.EPERM}
	// ErrInvalid (EINVAL): an argument out of range, a bad name.
	ErrInvalid error = &kind{"invalid argument", syscall.EINVAL}
	// ErrInUse (EBUSY): clients are connected.
	ErrInUse error = &kind{"in use", syscall.EBUSY}
	// ErrDamaged (EIO): the bytes are not those that were written.
	ErrDamaged error = &kind{"damaged data", syscall.EIO}
	// ErrFailed (EIO): a device was taken out of service.
	ErrFailed error = &kind{"device failed", syscall.EIO}
	// ErrStoreFailed (EIO): the disk of the metadata store does not take changes.
	ErrStoreFailed error = &kind{"the metadata store cannot be written", syscall.EIO}
	// ErrClosed (ESHUTDOWN): the array or the handle is closed.
	ErrClosed error = &kind{"closed", syscall.ESHUTDOWN}

	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")

	// ErrNotArray: a device has no superblock.
	ErrNotArray = errors.New("not a device of an lsad array")
	// ErrForeignDevice: a device belongs to another array.
	ErrForeignDevice = errors.New("device of another array")
	// ErrMissingDevice: a device of the array was not given.
	ErrMissingDevice = errors.New("device missing")
	// ErrStaleDevice: the array went on without the device.
	ErrStaleDevice = errors.New("device is stale")
	// ErrStaleStore (an ErrStaleDevice): the metadata store is not the newest
	// there was.
	ErrStaleStore error = staleStore{}
	// ErrGivenUp (an ErrStaleDevice): the array was told to go on without the
	// device, for good.
	ErrGivenUp error = givenUp{}
	// ErrStoreUnread: a part of the map cannot be read from the metadata store.
	ErrStoreUnread = errors.New("cannot be read")
	// ErrStoreDamaged: a file of the metadata store is damaged or missing.
	ErrStoreDamaged = errors.New("a file of it is damaged")
	// ErrGap: the log lacks records that were known to be durable.
	ErrGap = errors.New("the log is damaged")
)

type givenUp struct{}

func (givenUp) Error() string        { return "given up" }
func (givenUp) Is(target error) bool { return target == ErrStaleDevice }

type staleStore struct{}

func (staleStore) Error() string        { return "out of date" }
func (staleStore) Is(target error) bool { return target == ErrStaleDevice }
