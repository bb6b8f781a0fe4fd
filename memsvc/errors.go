package memsvc

import "errors"

// Errors that callers can test for. Errors of the Store are passed on as they are.
var (
	// ErrInvalid: the request, or a file that it names, makes no sense.
	ErrInvalid = errors.New("invalid")
	// ErrNotFound: there is no such image.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken.
	ErrExists = errors.New("exists already")
	// ErrInUse: clients have it open.
	ErrInUse = errors.New("in use")
	// ErrRunning: nothing proves that the VM is paused.
	ErrRunning = errors.New("not known to be paused")
	// ErrDamaged: what is stored does not match its checksum, or is no manifest.
	ErrDamaged = errors.New("damaged")
	// ErrClosed: the service is stopping.
	ErrClosed = errors.New("shutting down")
)
