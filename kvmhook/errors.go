package kvmhook

import "errors"

var (
	// ErrHandshake says that what connected did not speak the handshake.
	ErrHandshake = errors.New("handshake of the VMM")
	// ErrLost is wrapped by a Source's error where content cannot be had, ever: the page is poisoned.
	ErrLost = errors.New("content lost")
	// ErrSource says that the source is gone, or is not what it was.
	ErrSource = errors.New("source of the image")
	// ErrMemory says that the kernel refuses to install pages, or that the VMM changed its memory in a way that cannot
	// be followed.
	ErrMemory = errors.New("memory of the VM")
)
