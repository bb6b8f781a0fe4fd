package qemu

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// reader takes big-endian values from a stream. The first error sticks: later calls return zeros, and callers
// look at err where it matters.
type reader struct {
	r   *bufio.Reader
	pos int64 // bytes read
	err error
	end error // what it means that the stream ends
	buf [8]byte
}

func newReader(r io.Reader, size int) *reader {
	return &reader{r: bufio.NewReaderSize(r, size), end: malformed("it ends too early")}
}

// fail keeps the first error and where it was found.
func (r *reader) fail(err error) {
	if r.err != nil {
		return
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = r.end
	}
	r.err = fmt.Errorf("byte %d: %w", r.pos, err)
}

func (r *reader) full(p []byte) bool {
	if r.err != nil {
		return false
	}
	n, err := io.ReadFull(r.r, p)
	r.pos += int64(n)
	if err != nil {
		r.fail(err)
		return false
	}
	return true
}

func (r *reader) u8() byte {
	if !r.full(r.buf[:1]) {
		return 0
	}
	return r.buf[0]
}

func (r *reader) u16() uint16 {
	if !r.full(r.buf[:2]) {
		return 0
	}
	return binary.BigEndian.Uint16(r.buf[:2])
}

func (r *reader) u32() uint32 {
	if !r.full(r.buf[:4]) {
		return 0
	}
	return binary.BigEndian.Uint32(r.buf[:4])
}

func (r *reader) u64() uint64 {
	if !r.full(r.buf[:8]) {
		return 0
	}
	return binary.BigEndian.Uint64(r.buf[:8])
}

// bytes reads n bytes into memory of their own; the caller has bounded n.
func (r *reader) bytes(n int) []byte {
	if r.err != nil {
		return nil
	}
	p := make([]byte, n)
	if !r.full(p) {
		return nil
	}
	return p
}

// name reads a length of one byte, then as much text.
func (r *reader) name() string { return string(r.bytes(int(r.u8()))) }

// peek is the next byte, which stays unread.
func (r *reader) peek() (byte, bool) {
	if r.err != nil {
		return 0, false
	}
	p, err := r.r.Peek(1)
	if err != nil {
		return 0, false // whoever reads it gets the error
	}
	return p[0], true
}
