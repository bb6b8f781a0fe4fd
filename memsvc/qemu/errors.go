package qemu

import (
	"errors"
	"fmt"
)

// Errors that callers can test for.
var (
	// ErrMalformed: the peer sent what is no migration stream, or breaks its rules.
	ErrMalformed = errors.New("malformed migration stream")
	// ErrUnsupported: the stream uses something that lsad does not take; the error names it.
	ErrUnsupported = errors.New("not supported")
	// ErrRefused: the destination ended the migration.
	ErrRefused = errors.New("refused by the destination")
	// ErrLost: the connection broke.
	ErrLost = errors.New("connection lost")
	// ErrEnded: the destination's QEMU has ended. Dial returns it when it knows.
	ErrEnded = errors.New("the destination's QEMU has ended")
	// ErrComplete: the destination lacks no memory, so that it takes none. Dial returns it when it knows.
	ErrComplete = errors.New("the destination's QEMU says that it has all of its memory")
	// ErrSourceEnded: the source's QEMU has closed its monitor, as it does when it ends, before it had handed the VM over.
	ErrSourceEnded = errors.New("the source's QEMU has ended")
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, args...))
}
