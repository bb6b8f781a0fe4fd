package nbd

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"lsad/internal/nbdproto"
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
	errReadOnly     = &requestError{nbdproto.EPerm, "the export is read-only"}
	errReadBounds   = &requestError{nbdproto.EInval, "the request reaches past the end of the export"}
	errWriteBounds  = &requestError{nbdproto.ENoSpc, "the request reaches past the end of the export"}
	errReadTooBig   = &requestError{nbdproto.EOverflow, "a read may be 32 MiB at most"}
	errWriteTooBig  = &requestError{nbdproto.EInval, "a write may be 32 MiB at most"}
	errBadCommand   = &requestError{nbdproto.EInval, "unknown command"}
	errBadFlags     = &requestError{nbdproto.EInval, "a command flag is unknown or does not belong to this command"}
	errNoPayload    = &requestError{nbdproto.EInval, "a write must carry the payload flag when extended headers are in use"}
	errFlushRange   = &requestError{nbdproto.EInval, "offset and length of a flush must be zero"}
	errNoContext    = &requestError{nbdproto.EInval, "no metadata context was negotiated for this export"}
	errZeroStatus   = &requestError{nbdproto.EInval, "block status of zero bytes"}
	errBadPayload   = &requestError{nbdproto.EInval, "malformed block status payload"}
	errNotFast      = &requestError{nbdproto.ENotSup, "zeroing less than a block is no faster than writing it"}
	errShuttingDown = &requestError{nbdproto.EShutdown, "the server is shutting down"}
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
		return nbdproto.EIO
	}
	switch errno {
	case syscall.EPERM, syscall.EACCES, syscall.EROFS:
		return nbdproto.EPerm
	case syscall.ENOMEM:
		return nbdproto.ENoMem
	case syscall.EINVAL:
		return nbdproto.EInval
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return nbdproto.ENoSpc
	case syscall.EOVERFLOW:
		return nbdproto.EOverflow
	case syscall.ENOTSUP:
		if fastZero {
			return nbdproto.ENotSup
		}
		return nbdproto.EInval
	case syscall.ESHUTDOWN:
		return nbdproto.EShutdown
	}
	return nbdproto.EIO
}

// errorOffset is the offset that err carries, if it lies within the request.
func errorOffset(err error, r *request) (int64, bool) {
	var oe *OffsetError
	if errors.As(err, &oe) && oe.Offset >= r.off && oe.Offset-r.off < r.n {
		return oe.Offset, true
	}
	return 0, false
}
