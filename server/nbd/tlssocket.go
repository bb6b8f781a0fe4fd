package nbd

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// tlsSocket is the socket below TLS. TLS hands out one record at a time, which may be one request, and there
// is no asking it whether it has more. So the receiver reads once, and then again without waiting: Read fails
// as if a deadline had passed, which TLS takes without losing what it has of a record.
type tlsSocket struct {
	net.Conn
	raw   syscall.RawConn
	quick bool // do not wait

	p   []byte
	n   int
	err error
	try func(fd uintptr) bool // readNow, bound once
}

// newTLSSocket returns nil where the socket cannot be read without waiting.
func newTLSSocket(nc net.Conn) *tlsSocket {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &tlsSocket{Conn: nc, raw: raw}
	s.try = s.readNow
	return s
}

func (s *tlsSocket) Read(p []byte) (int, error) {
	if !s.quick {
		return s.Conn.Read(p)
	}
	s.p, s.n, s.err = p, 0, os.ErrDeadlineExceeded
	if err := s.raw.Read(s.try); err != nil {
		return 0, err
	}
	s.p = nil
	return s.n, s.err
}

// readNow reads if there is something. An end or a broken connection is left to the next Read that waits.
func (s *tlsSocket) readNow(fd uintptr) bool {
	if n, err := unix.Read(int(fd), s.p); err == nil && n > 0 {
		s.n, s.err = n, nil
	}
	return true
}
