package nbd

import "encoding/binary"

// read answers a read from what the export has at hand, or makes a job of it.
func (c *conn) read(r *request) error {
	n := int(r.n)
	switch {
	case n == 0:
		return c.succeed(r)
	case n > inlineMax:
		return c.submit(r, n)
	}
	h := c.sess.dataHeaderSize()
	p, err := c.roomFor(h + n)
	if err != nil {
		return err
	}
	done, err := c.export.TryReadAt(p[h:h+n], r.off)
	if err != nil {
		return c.failRequest(r, err)
	}
	if !done {
		return c.submit(r, n)
	}
	c.out.grow(c.sess.finishRead(p, r, h, n))
	c.stats.add(r.cmd, r.n, false)
	return nil
}

// finishRead makes a reply of n bytes of data at p[h:], and returns its length: the data with their header
// before them, or a hole if they are all zeros.
func (s *session) finishRead(p []byte, r *request, h, n int) int {
	if n >= minShortHole && s.maySendHoles(r) && isZero(p[h:h+n]) {
		return s.putHole(p, r, replyFlagDone, r.off, n)
	}
	s.putDataHeader(p, r, replyFlagDone, r.off, n)
	return h + n
}

var zeros [4096]byte

// isZero says whether p is all zeros. The usual data are seen not to be in their first bytes.
func isZero(p []byte) bool {
	if len(p) >= 8 && binary.LittleEndian.Uint64(p) != 0 {
		return false
	}
	for len(p) > len(zeros) {
		if [4096]byte(p) != zeros {
			return false
		}
		p = p[len(zeros):]
	}
	return string(p) == string(zeros[:len(p)])
}

// minShortHole is the shortest read of zeros that is answered with a hole, in bytes. A hole takes up to 44 itself.
const minShortHole = 512

// minHole is the shortest hole in the middle of a long read that is told apart, in bytes.
const minHole = 32 << 10

// span is a part of a read.
type span struct {
	off, n int64
	hole   bool
}

// spans divides a read into data and holes worth telling apart.
func (c *conn) spans(r *request) []span {
	whole := []span{{off: r.off, n: r.n}}
	if !c.sess.maySendHoles(r) || r.n < minHole {
		return whole
	}
	var list []span
	at := r.off
	err := c.export.Extents(r.off, r.n, func(n int64, _, zero bool) bool {
		n = min(n, r.off+r.n-at)
		hole := zero && n >= minHole
		if k := len(list); k > 0 && list[k-1].hole == hole {
			list[k-1].n += n
		} else {
			list = append(list, span{off: at, n: n, hole: hole})
		}
		at += n
		return at < r.off+r.n
	})
	if err != nil || at != r.off+r.n {
		return whole // reading will tell
	}
	return list
}

// readJob reads a job's data into its buffer, behind each other with their headers, and returns the reply. Holes
// are shorter than what they stand for, so that the reply always fits.
func (c *conn) readJob(j *job) ([]byte, error) {
	r, p := &j.req, j.buf.b
	if r.n <= inlineMax {
		h := c.sess.dataHeaderSize()
		if err := c.export.ReadAt(p[h:h+int(r.n)], r.off); err != nil {
			return nil, err
		}
		return p[:c.sess.finishRead(p, r, h, int(r.n))], nil
	}
	list, w := c.spans(r), 0
	for i, s := range list {
		flags := uint16(0)
		if i == len(list)-1 {
			flags = replyFlagDone
		}
		if s.hole {
			w += c.sess.putHole(p[w:], r, flags, s.off, int(s.n))
			continue
		}
		w += c.sess.putDataHeader(p[w:], r, flags, s.off, int(s.n))
		if err := c.export.ReadAt(p[w:w+int(s.n)], s.off); err != nil {
			return nil, err
		}
		w += int(s.n)
	}
	return p[:w], nil
}
