package nbdclient

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"

	"lsad/internal/nbdproto"
)

const (
	// maxStatusPayload bounds a block status chunk, in bytes: 64 Ki ranges with extended headers.
	maxStatusPayload = 1<<20 + 16
	// maxErrorPayload bounds an error chunk, in bytes.
	maxErrorPayload = nbdproto.MaxString + 64
	receiveBuffer   = 64 << 10
)

// counted counts what comes, so that a stall can be told from a slow line.
type counted struct {
	net.Conn
	c *Client
}

func (r counted) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.c.received.Add(int64(n))
	return n, err
}

// receiver reads replies. It is the only one that finishes calls that have started.
type receiver struct {
	c    *Client
	r    *bufio.Reader
	head [nbdproto.ExtendedReplySize]byte
	// current is the call that an answer is arriving for, marked as filling.
	current *call
	small   []byte // payloads that are not data
}

func (c *Client) receive() {
	r := &receiver{c: c, r: bufio.NewReaderSize(counted{c.conn, c}, receiveBuffer)}
	var err error
	for err == nil {
		err = r.one()
	}
	c.fail(c.ended(err))
	c.finishAll()
}

// finishAll fails every call that has started. None starts any more.
func (c *Client) finishAll() {
	for i := range c.calls {
		k := &c.calls[i]
		c.mu.Lock()
		state := k.state
		k.state = idle
		err := c.err
		c.mu.Unlock()
		if state == waiting || state == filling {
			k.err = err
			k.tell(c.free)
		}
	}
}

// one reads one reply or one chunk of it.
func (r *receiver) one() error {
	if _, err := io.ReadFull(r.r, r.head[:4]); err != nil {
		return err
	}
	switch magic := binary.BigEndian.Uint32(r.head[:]); {
	case magic == nbdproto.MagicSimpleReply && !r.c.info.Extended:
		return r.simple()
	case magic == nbdproto.MagicStructuredReply && r.c.info.Structured && !r.c.info.Extended:
		return r.structured(nbdproto.StructuredReplySize)
	case magic == nbdproto.MagicExtendedReply && r.c.info.Extended:
		return r.structured(nbdproto.ExtendedReplySize)
	default:
		return protocolError("reply magic %#x", magic)
	}
}

// claim finds the call that a reply is for.
func (r *receiver) claim(cookie uint64) error {
	k := &r.c.calls[cookie&(MaxInFlight-1)]
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if k.state == idle || k.cookie() != cookie {
		return protocolError("a reply to request %#x, which is not in flight", cookie)
	}
	if k.state == waiting {
		k.state = filling
	}
	r.current = k
	return nil
}

// wanted says whether somebody waits for the current call.
func (r *receiver) wanted() bool { return r.current.state == filling }

// release ends the reading of a chunk; the call is finished, or waits for the next one.
func (r *receiver) release(finished bool) {
	k := r.current
	r.current = nil
	r.c.mu.Lock()
	wanted := k.state == filling
	switch {
	case finished:
		k.state = idle
	case wanted:
		k.state = waiting
	}
	r.c.mu.Unlock()
	if !finished {
		return
	}
	r.c.inFlight.Add(-1)
	if wanted {
		k.tell(r.c.free)
		return
	}
	k.p = nil
	r.c.free <- k
}

func (r *receiver) simple() error {
	if _, err := io.ReadFull(r.r, r.head[4:nbdproto.SimpleReplySize]); err != nil {
		return err
	}
	if err := r.claim(binary.BigEndian.Uint64(r.head[8:])); err != nil {
		return err
	}
	k := r.current
	if v := binary.BigEndian.Uint32(r.head[4:]); v != 0 {
		k.err = &RemoteError{Op: k.op(), Off: k.off, N: k.n, Errno: errno(v)}
		r.release(true)
		return nil
	}
	if r.c.info.Structured || k.cmd != nbdproto.CmdRead {
		return protocolError("a simple reply to a %s", k.op())
	}
	if err := r.data(0, k.n); err != nil {
		return err
	}
	r.release(true)
	return nil
}

// data reads n bytes to their place in the current call's buffer, or throws them away.
func (r *receiver) data(at, n int64) error {
	if !r.wanted() {
		_, err := io.CopyN(io.Discard, r.r, n)
		return err
	}
	_, err := io.ReadFull(r.r, r.current.p[at:at+n])
	return err
}
