package nbdclient

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrProtocol is what is wrong with a server that does not keep to the protocol, or is none for NBD.
	ErrProtocol = errors.New("the server does not keep to the NBD protocol")
	// ErrUnknownExport says that the server has no export of that name.
	ErrUnknownExport = errors.New("no such export")
	// ErrTLS says that server and client do not agree on TLS, or that its handshake failed.
	ErrTLS = errors.New("TLS")
	// ErrRefused says that the server refused the negotiation for another reason.
	ErrRefused = errors.New("refused by the server")
	// ErrDisconnected says that the connection is gone; another one may do better.
	ErrDisconnected = errors.New("connection lost")
	// ErrClosed says that the client was closed with Close.
	ErrClosed = errors.New("client closed")
	// ErrNoBlockStatus says that the server does not tell where holes are.
	ErrNoBlockStatus = errors.New("the server does not offer base:allocation")
	// ErrURI says that an URI is wrong.
	ErrURI = errors.New("NBD URI")
)

// RemoteError is the server's answer to a request that failed there. The connection goes on. It wraps the
// syscall.Errno that stands for the protocol's error value.
type RemoteError struct {
	Op     string // "read" or "block status"
	Off, N int64  // bytes asked for
	Errno  syscall.Errno
	Text   string // what the server said besides, made printable
}

func (e *RemoteError) Error() string {
	s := fmt.Sprintf("%s of %d bytes at %d: the server answers: %v", e.Op, e.N, e.Off, e.Errno)
	if e.Text != "" {
		s += " (" + e.Text + ")"
	}
	return s
}

func (e *RemoteError) Unwrap() error { return e.Errno }

// unreachable is the error of a connection that could not be made. It Is ErrDisconnected too: another attempt may do
// better.
type unreachable struct{ err error }

func (e unreachable) Error() string   { return "cannot connect: " + e.err.Error() }
func (e unreachable) Unwrap() []error { return []error{ErrDisconnected, e.err} }

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...))
}

// errno translates an error value of the protocol. The specification's values are those of Linux; EINVAL stands for
// any that it does not list.
func errno(v uint32) syscall.Errno {
	switch e := syscall.Errno(v); e {
	case syscall.EPERM, syscall.EIO, syscall.ENOMEM, syscall.EINVAL, syscall.ENOSPC, syscall.EOVERFLOW,
		syscall.ENOTSUP, syscall.ESHUTDOWN:
		return e
	}
	return syscall.EINVAL
}

// printable makes a server's text harmless for a terminal and a log.
func printable(p []byte) string {
	p = p[:min(len(p), 512)]
	out := make([]rune, 0, len(p))
	for _, r := range string(p) {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}
