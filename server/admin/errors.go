package admin

import (
	"errors"
	"fmt"
	"net/http"
)

// Code says what kind of error it was. Programs may rely on the codes; they do not change.
type Code string

// The codes.
const (
	CodeInvalid      Code = "invalid"       // the request makes no sense
	CodeNotFound     Code = "not_found"     // no such volume, snapshot, device or path
	CodeExists       Code = "exists"        // the name is taken
	CodeInUse        Code = "in_use"        // clients are connected
	CodeNoSpace      Code = "no_space"      // the array is full
	CodeReadOnly     Code = "read_only"     // the array cannot be changed now
	CodeDamaged      Code = "damaged"       // data or metadata failed verification
	CodeFailed       Code = "failed"        // a device is out of service
	CodeClosed       Code = "shutting_down" // the server is stopping
	CodeUnauthorized Code = "unauthorized"  // the token is missing or wrong
	CodeForbidden    Code = "forbidden"     // this listener allows no changes
	CodeMethod       Code = "method_not_allowed"
	CodeInternal     Code = "internal"
)

var statusOf = map[Code]int{
	CodeInvalid:      http.StatusBadRequest,
	CodeNotFound:     http.StatusNotFound,
	CodeExists:       http.StatusConflict,
	CodeInUse:        http.StatusConflict,
	CodeNoSpace:      http.StatusInsufficientStorage,
	CodeReadOnly:     http.StatusConflict,
	CodeDamaged:      http.StatusInternalServerError,
	CodeFailed:       http.StatusServiceUnavailable,
	CodeClosed:       http.StatusServiceUnavailable,
	CodeUnauthorized: http.StatusUnauthorized,
	CodeForbidden:    http.StatusForbidden,
	CodeMethod:       http.StatusMethodNotAllowed,
	CodeInternal:     http.StatusInternalServerError,
}

// ErrNoServer is what a Client's error Is when nobody answers.
var ErrNoServer = errors.New("no server")

// ErrStopped is what a Client's error Is when the server has ended in the middle of a job.
var ErrStopped = errors.New("it stopped in the middle of the work")

// Error is an error with a code, on both sides of the connection.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Owner   string `json:"owner,omitempty"` // who has the VM, if its restore failed: source, destination or nobody
	cause   error
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.cause }

// Wrap gives err a code. Nil stays nil.
func Wrap(code Code, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Code: code, Message: err.Error(), cause: err}
}

// Errorf makes an error with a code.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf is the code that err carries, or CodeInternal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// OwnerOf is who has the VM of whose restore err speaks, "" if it does not say.
func OwnerOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Owner
	}
	return ""
}

// Owned says of a failed restore who has the VM.
func Owned(err error, owner string) error {
	return &Error{Code: CodeOf(err), Message: err.Error(), Owner: owner, cause: err}
}

// errorBody is the JSON of an error.
type errorBody struct {
	Error Error `json:"error"`
}
