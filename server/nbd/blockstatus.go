package nbd

import (
	"encoding/binary"

	"lsad/internal/nbdproto"
)

const (
	// statusBuffer is the memory for one block status reply, in bytes. It bounds the number of ranges told
	// at once; clients ask on from where the reply ends.
	statusBuffer = 128 << 10
	// shortStatus is the same where memory is short.
	shortStatus = 4 << 10
)

// blockStatus hands the request to the workers, after reading its payload if it has one.
func (c *conn) blockStatus(r *request) error {
	if r.payload > 0 {
		if r.payload > 8+4*int64(len(c.sess.contexts)) {
			return c.refuse(r, errBadPayload)
		}
		p := c.recv.buffered()[:r.payload]
		c.recv.consume(len(p))
		r.payload = 0
		if err := c.sess.parseStatusPayload(r, p, c.size); err != nil {
			return c.failRequest(r, err)
		}
	}
	return c.submit(r, statusBuffer)
}

// parseStatusPayload reads the effect length, and the ids of the contexts to which the reply is to be limited.
func (s *session) parseStatusPayload(r *request, p []byte, size int64) *requestError {
	if len(p) < 12 || len(p)%4 != 0 {
		return errBadPayload
	}
	r.n = clampInt64(binary.BigEndian.Uint64(p))
	for p = p[8:]; len(p) > 0; p = p[4:] {
		bit := s.contextBit(binary.BigEndian.Uint32(p))
		if bit == 0 || r.contexts&bit != 0 {
			return errBadPayload // unknown, or named twice
		}
		r.contexts |= bit
	}
	return checkStatusRange(r, size)
}

// contextBit is the bit of request.contexts for a context id, 0 if there is no such context.
func (s *session) contextBit(id uint32) uint64 {
	for i := range s.contexts {
		if s.contexts[i].id == id {
			return 1 << i
		}
	}
	return 0
}

// statusReply writes the reply of a block status request to p: for each context one chunk, with as many ranges
// as its share of p holds.
func (c *conn) statusReply(p []byte, r *request) (n int, err error) {
	wanted := r.contexts
	if wanted == 0 {
		wanted = 1<<len(c.sess.contexts) - 1
	}
	share := len(p) / len(c.sess.contexts)
	for i := range c.sess.contexts {
		if wanted&(1<<i) == 0 {
			continue
		}
		wanted &^= 1 << i
		flags := uint16(0)
		if wanted == 0 {
			flags = nbdproto.ReplyFlagDone
		}
		m, err := c.statusChunk(p[n:n+share], r, flags, &c.sess.contexts[i])
		if err != nil {
			return 0, err
		}
		n += m
	}
	return n, nil
}

// rangeList writes the ranges of a status chunk, neighbours of the same status as one.
type rangeList struct {
	p        []byte
	n        int // bytes used
	extended bool
	one      bool  // only the first range
	left     int64 // bytes of the request not yet told
	length   int64 // of the range that may still grow
	status   uint64
}

// add takes a range in, and says whether there may be more.
func (l *rangeList) add(n int64, status uint64) bool {
	n = min(n, l.left)
	if n <= 0 {
		return l.left > 0
	}
	if l.length > 0 && status != l.status {
		l.put()
		if l.one || l.n+l.size() > len(l.p) {
			return false
		}
	}
	l.status = status
	l.length += n
	l.left -= n
	return l.left > 0
}

func (l *rangeList) size() int {
	if l.extended {
		return 16
	}
	return 8
}

// put writes the range that was growing.
func (l *rangeList) put() {
	if l.length == 0 {
		return
	}
	p := l.p[l.n:]
	if l.extended {
		binary.BigEndian.PutUint64(p, uint64(l.length))
		binary.BigEndian.PutUint64(p[8:], l.status)
	} else {
		// Compact requests are shorter than 2^32 bytes, and their ranges lie within them.
		binary.BigEndian.PutUint32(p, uint32(l.length))
		binary.BigEndian.PutUint32(p[4:], uint32(l.status))
	}
	l.n += l.size()
	l.length = 0
}

func (c *conn) statusChunk(p []byte, r *request, flags uint16, ctx *activeContext) (n int, err error) {
	head, typ, fixed := nbdproto.StructuredReplySize, uint16(nbdproto.ReplyBlockStatus), 4
	if c.sess.extended {
		head, typ, fixed = nbdproto.ExtendedReplySize, nbdproto.ReplyBlockStatusExt, 8
	}
	l := rangeList{p: p[head+fixed:], extended: c.sess.extended, one: r.has(nbdproto.CmdFlagReqOne), left: r.n}
	if err := ctx.status(c.export, r.off, r.n, l.add); err != nil {
		return 0, err
	}
	l.put()
	if l.n == 0 { // an export that tells nothing; it is always right to know nothing
		l.length, l.status = r.n, 0
		l.put()
	}
	c.sess.chunkHeader(p, r, flags, typ, fixed+l.n)
	binary.BigEndian.PutUint32(p[head:], ctx.id)
	if c.sess.extended {
		binary.BigEndian.PutUint32(p[head+4:], uint32(l.n/l.size()))
	}
	return head + fixed + l.n, nil
}

// statusJob answers a job's request in its buffer.
func (c *conn) statusJob(j *job) ([]byte, error) {
	n, err := c.statusReply(j.buf.b, &j.req)
	return j.buf.b[:n], err
}

// statusInPieces answers in the reader, telling less.
func (c *conn) statusInPieces(r *request) error {
	p, err := c.roomFor(shortStatus)
	if err != nil {
		return err
	}
	n, err := c.statusReply(p, r)
	if err != nil {
		return c.failRequest(r, err)
	}
	c.out.grow(n)
	c.stats.add(r.cmd, r.n, false)
	return nil
}
