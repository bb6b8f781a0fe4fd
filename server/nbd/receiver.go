package nbd

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// minProgress is how many bytes of an incomplete request must arrive within the stall timeout.
const minProgress = 16 << 10

var (
	errStalled  = errors.New("the client did not get ahead with a request that it began")
	errDraining = errors.New("the server is shutting down")
)

// receiver reads requests. Bytes r to w of the stage are received and not yet handled. While there are none
// and the socket has none, the stage is given back: an idle connection holds no buffer.
type receiver struct {
	nc       net.Conn
	raw      syscall.RawConn // nil where the bytes on the socket are not ours to parse (TLS)
	tls      *tlsSocket      // below TLS, to read on without waiting; nil if there is none
	timeout  time.Duration
	draining *atomic.Bool

	stage *stage
	r, w  int
	total atomic.Uint64 // bytes received

	onReady func(fd uintptr) bool // readReady, bound once
	n       int
	err     error
	first   [64]byte // where a connection without raw waits

	// A read deadline is armed when an incomplete request makes us wait, and looked at when it fires:
	// the common case never touches a timer.
	armed     bool
	markBytes uint64 // total when it was armed
	progress  bool   // a request was completed since
}

func (rv *receiver) init(nc net.Conn, raw syscall.RawConn, tls *tlsSocket, timeout time.Duration, draining *atomic.Bool) {
	rv.nc, rv.raw, rv.tls, rv.timeout, rv.draining = nc, raw, tls, timeout, draining
	rv.onReady = rv.readReady
}

// buffered is what was received and not yet handled.
func (rv *receiver) buffered() []byte {
	if rv.stage == nil {
		return nil
	}
	return rv.stage.b[rv.r:rv.w]
}

// consume counts the first n buffered bytes as handled.
func (rv *receiver) consume(n int) { rv.r += n }

// fill waits for more bytes, and takes in what one read gives. Slices of the buffer are no longer valid.
func (rv *receiver) fill() error {
	if rv.r == rv.w {
		rv.r, rv.w = 0, 0
	} else if rv.r > 0 {
		rv.w = copy(rv.stage.b[:], rv.stage.b[rv.r:rv.w])
		rv.r = 0
	}
	for {
		n, err := rv.read()
		if n > 0 {
			rv.took(n)
			rv.readOn()
			return nil
		}
		if err = rv.patience(err, rv.w > 0); err != nil {
			return err
		}
	}
}

func (rv *receiver) took(n int) {
	rv.w += n
	rv.total.Add(uint64(n))
}

// readOn takes in what else TLS can give without waiting. Errors show again in the next read that waits.
func (rv *receiver) readOn() {
	if rv.tls == nil {
		return
	}
	rv.tls.quick = true
	for rv.w < stageSize {
		n, _ := rv.nc.Read(rv.stage.b[rv.w:])
		if n <= 0 {
			break
		}
		rv.took(n)
	}
	rv.tls.quick = false
}

// read is one read of the socket into the free part of the stage.
func (rv *receiver) read() (int, error) {
	if rv.w > 0 && !rv.armed {
		if err := rv.arm(); err != nil {
			return 0, err
		}
	}
	if rv.raw != nil {
		rv.n, rv.err = 0, nil
		if err := rv.raw.Read(rv.onReady); err != nil {
			return 0, err
		}
		return rv.n, rv.err
	}
	if rv.w > 0 {
		return rv.nc.Read(rv.stage.b[rv.w:])
	}
	if rv.stage != nil {
		putStage(rv.stage)
		rv.stage = nil
	}
	n, err := rv.nc.Read(rv.first[:])
	if n > 0 {
		rv.stage = getStage()
		copy(rv.stage.b[:], rv.first[:n])
	}
	return n, err
}

// readReady reads if the socket has something; else it says so, and gives an empty stage back.
func (rv *receiver) readReady(fd uintptr) bool {
	if rv.stage == nil {
		rv.stage = getStage()
	}
	for {
		n, err := unix.Read(int(fd), rv.stage.b[rv.w:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			if rv.w == 0 {
				putStage(rv.stage)
				rv.stage = nil
			}
			return false
		case err != nil:
			rv.err = err
		case n == 0:
			rv.err = io.EOF
		default:
			rv.n = n
		}
		return true
	}
}

// readFull fills p, first from what is buffered. The buffer must hold nothing that is still in use.
func (rv *receiver) readFull(p []byte) error {
	n := copy(p, rv.buffered())
	rv.r += n
	for n < len(p) {
		if !rv.armed {
			if err := rv.arm(); err != nil {
				return err
			}
		}
		m, err := rv.nc.Read(p[n:])
		n += m
		rv.total.Add(uint64(m))
		if err == nil || n == len(p) {
			continue
		}
		if err := rv.patience(err, true); err != nil {
			return err
		}
	}
	rv.progress = true
	return nil
}

func (rv *receiver) arm() error {
	rv.armed, rv.progress, rv.markBytes = true, false, rv.total.Load()
	if err := rv.nc.SetReadDeadline(time.Now().Add(rv.timeout)); err != nil {
		return err
	}
	if rv.draining.Load() {
		return errDraining
	}
	return nil
}

// patience decides what the error of a read means: nil if reading should go on. partial says that a request
// has been received in part.
func (rv *receiver) patience(err error, partial bool) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		if errors.Is(err, io.EOF) && partial {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if rv.draining.Load() {
		return errDraining
	}
	if !partial {
		rv.armed = false
		if err := rv.nc.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		if rv.draining.Load() { // Shutdown's own deadline may just have been overwritten
			return errDraining
		}
		return nil
	}
	if !rv.progress && rv.total.Load()-rv.markBytes < minProgress {
		return errStalled
	}
	return rv.arm()
}

// handOver gives the caller the buffer with everything handled in it, and goes on with another one.
func (rv *receiver) handOver() *stage {
	old, rest := rv.stage, rv.buffered()
	rv.stage, rv.r, rv.w = nil, 0, 0
	if len(rest) > 0 {
		rv.stage = getStage()
		rv.w = copy(rv.stage.b[:], rest)
	}
	return old
}

func (rv *receiver) close() {
	if rv.stage != nil {
		putStage(rv.stage)
		rv.stage = nil
	}
}
