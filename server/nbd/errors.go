package nbd

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// OffsetError is an error of an Export at a known place, which clients with structured replies are told.
type OffsetError struct {
	Offset int64 // bytes from the start of the export
	Err    error
}

func (e *OffsetError) Error() string { return fmt.Sprintf("at offset %d: %v", e.Offset, e.Err) }
func (e *OffsetError) Unwrap() error { return e.Err }

// requestError is an error found by the server itself before an export was asked.
type requestError struct {
	code uint32
	text string
}

func (e *requestError) Error() string { return e.text }

var (
	errReadOnly     = &requestError{ePerm, "the export is read-only"}
	errReadBounds   = &requestError{eInval, "the request reaches past the end of the export"}
	errWriteBounds  = &requestError{eNoSpc, "the request reaches past the end of the export"}
	errReadTooBig   = &requestError{eOverflow, "a read may be 32 MiB at most"}
	errWriteTooBig  = &requestError{eInval, "a write may be 32 MiB at most"}
	errBadCommand   = &requestError{eInval, "unknown command"}
	errBadFlags     = &requestError{eInval, "a command flag is unknown or does not belong to this command"}
	errNoPayload    = &requestError{eInval, "a write must carry the payload flag when extended headers are in use"}
	errFlushRange   = &requestError{eInval, "offset and length of a flush must be zero"}
	errNoContext    = &requestError{eInval, "no metadata context was negotiated for this export"}
	errZeroStatus   = &requestError{eInval, "block status of zero bytes"}
	errBadPayload   = &requestError{eInval, "malformed block status payload"}
	errNotFast      = &requestError{eNotSup, "zeroing less than a block is no faster than writing it"}
	errShuttingDown = &requestError{eShutdown, "the server is shutting down"}
)

// maxErrorText bounds the text of an error chunk, in bytes; the protocol allows 4096.
const maxErrorText = 1024

// errorText is err as a string that the protocol allows.
func errorText(err error) string {
	s := err.Error()
	if len(s) > maxErrorText {
		s = s[:maxErrorText]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?")
}

// errorCode is the NBD error value for err. ENOTSUP is reserved for fast zeroing: elsewhere a client is told
// EINVAL.
func errorCode(err error, fastZero bool) uint32 {
	var re *requestError
	if errors.As(err, &re) {
		return re.code
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return eIO
	}
	switch errno {
	case syscall.EPERM, syscall.EACCES, syscall.EROFS:
		return ePerm
	case syscall.ENOMEM:
		return eNoMem
	case syscall.EINVAL:
		return eInval
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return eNoSpc
	case syscall.EOVERFLOW:
		return eOverflow
	case syscall.ENOTSUP:
		if fastZero {
			return eNotSup
		}
		return eInval
	case syscall.ESHUTDOWN:
		return eShutdown
	}
	return eIO
}

// errorOffset is the offset that err carries, if it lies within the request.
func errorOffset(err error, r *request) (int64, bool) {
	var oe *OffsetError
	if errors.As(err, &oe) && oe.Offset >= r.off && oe.Offset-r.off < r.n {
		return oe.Offset, true
	}
	return 0, false
}
