package nbd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// conn is one connection. Its reader goroutine runs run; see the package comment.
type conn struct {
	srv    *Server
	id     uint64
	since  time.Time
	client Client
	log    *slog.Logger

	sock     net.Conn   // the socket itself
	nc       net.Conn   // sock, or TLS over it
	tls      *tlsSocket // between the two, if it is
	public   atomic.Pointer[publicState]
	draining atomic.Bool // no further requests are to be received

	sess     session
	export   Export
	readOnly bool

	recv receiver
	send sender
	jobs jobs

	// Of the reader only.
	size   int64   // of the export, as of this batch
	req    request // being handled
	out    outBatch
	group  []request // waits for a flush
	writes *writeBatch
	stats  batchStats

	slowWrites atomic.Bool // the last batch of writes took long
}

// unixSendBuffer is how much of the replies the kernel is asked to hold on a unix socket, in bytes, so that a long
// read leaves in few writes. The default of most systems makes five of each MiB. TCP sockets adjust themselves.
const unixSendBuffer = 1 << 20

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{srv: s, since: time.Now(), sock: nc, nc: nc, writes: new(writeBatch)}
	c.client.Addr = clientAddr(nc)
	c.public.Store(&publicState{client: c.client})
	c.jobs.init(&s.cfg, c.worker)
	return c
}

// clientAddr names the other side: by address, or for a unix socket by the process that connected.
func clientAddr(nc net.Conn) string {
	u, ok := nc.(*net.UnixConn)
	if !ok {
		return nc.RemoteAddr().String()
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return "unix"
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || credErr != nil {
		return "unix"
	}
	return fmt.Sprintf("unix:pid=%d,uid=%d", cred.Pid, cred.Uid)
}

// run is the life of the connection.
func (c *conn) run() {
	c.log = c.srv.cfg.Logger.With("conn", c.id, "client", c.client.Addr)
	defer c.close()
	if t, ok := c.sock.(*net.TCPConn); ok {
		t.SetNoDelay(true) // Go's default, but what the protocol asks for should not hang on that
	}
	c.sock.SetDeadline(time.Now().Add(c.srv.cfg.HandshakeTimeout))
	if u, ok := c.sock.(*net.UnixConn); ok {
		u.SetWriteBuffer(unixSendBuffer) // as far as the system allows; it works with any
	}
	if c.draining.Load() {
		return
	}
	name, err := c.negotiate()
	if err != nil {
		c.logHandshake(err)
		return
	}
	if c.export == nil {
		return // the client only wanted to know
	}
	c.log = c.log.With("export", name)
	c.log.Info("nbd: client connected", "read_only", c.export.ReadOnly(), "tls", c.client.TLS, "user", c.client.Name)
	err = c.transmit(name)
	c.logEnd(err)
}

func (c *conn) logHandshake(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, errDraining) {
		c.log.Debug("nbd: client left while negotiating")
		return
	}
	c.srv.stats.badHandshakes.Add(1)
	if more, ok := c.srv.logs.negotiation.Allow(time.Now()); ok {
		c.log.Warn("nbd: negotiation failed", "err", err, "more_since_last", more)
	}
}

// transmit serves requests until the client leaves, the connection fails or the server shuts down.
func (c *conn) transmit(name string) error {
	c.readOnly = c.export.ReadOnly()
	c.public.Store(&publicState{client: c.client, export: name, readOnly: c.readOnly})
	if m := c.srv.cfg.Metrics; m != nil {
		c.stats.rec = m.Export(name)
	}
	c.sock.SetDeadline(time.Time{})
	var raw syscall.RawConn
	if sc, ok := c.nc.(syscall.Conn); ok {
		if rc, err := sc.SyscallConn(); err == nil {
			raw = rc
		}
	}
	c.recv.init(c.nc, raw, c.tls, c.srv.cfg.StallTimeout, &c.draining)
	c.send.init(c.nc, c.srv.cfg.StallTimeout, c.endJobs, c.fail)
	if c.draining.Load() {
		return errDraining // its wake-up may have been lost with the deadline
	}
	err := c.readRequests()
	c.jobs.wait()
	c.send.wait()
	c.recv.close()
	if c.send.err != nil && !c.jobs.aborted.Load() {
		err = c.send.err
	}
	return err
}

func (c *conn) logEnd(err error) {
	switch {
	case err == nil || errors.Is(err, io.EOF):
		c.log.Info("nbd: client disconnected")
	case errors.Is(err, errDraining):
		c.log.Info("nbd: connection closed, the server is shutting down")
	case errors.Is(err, errStalled) || errors.Is(err, os.ErrDeadlineExceeded):
		c.srv.stats.stalled.Add(1)
		c.log.Warn("nbd: client dropped, it did not get ahead", "err", err)
	default:
		c.log.Warn("nbd: connection lost", "err", err)
	}
}

// fail ends the connection at once: reader and writer get errors.
func (c *conn) fail(error) { c.sock.Close() }

// drain asks the reader to stop receiving. What it has received is served.
func (c *conn) drain() {
	c.draining.Store(true)
	c.sock.SetReadDeadline(time.Unix(1, 0))
}

// abort has jobs that have not begun refused.
func (c *conn) abort() {
	c.jobs.aborted.Store(true)
	c.drain()
}

func (c *conn) close() {
	if c.export != nil {
		if err := c.export.Close(); err != nil {
			c.log.Error("nbd: closing the export failed", "err", err)
		}
	}
	if t, ok := c.nc.(*tls.Conn); ok {
		c.sock.SetWriteDeadline(time.Now().Add(time.Second))
		t.CloseWrite() // tells the client that this end is not an attack
	}
	c.linger()
	c.sock.Close()
}

// linger lets a TCP client read its last replies: closing a socket with unread requests in it would make the
// kernel throw them away.
func (c *conn) linger() {
	t, ok := c.sock.(*net.TCPConn)
	if !ok || !c.draining.Load() || c.jobs.aborted.Load() {
		return
	}
	if t.CloseWrite() != nil {
		return
	}
	t.SetReadDeadline(time.Now().Add(time.Second))
	io.Copy(io.Discard, io.LimitReader(t, MaxPayload))
}

// endJobs gives back what the jobs held.
func (c *conn) endJobs(list []*job) {
	for _, j := range list {
		if j.buf != nil {
			putPayload(j.buf)
		}
		if j.stage != nil {
			putStage(j.stage)
		}
		c.srv.buffers.release(j.size)
	}
	c.jobs.end(list)
}
