package nbd

import (
	"encoding/binary"

	"lsad/internal/nbdproto"
)

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
		return s.putHole(p, r, nbdproto.ReplyFlagDone, r.off, n)
	}
	s.putDataHeader(p, r, nbdproto.ReplyFlagDone, r.off, n)
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

// minHole is the shortest run of zeros in a long read that is told apart, in bytes.
const minHole = 32 << 10

// readJob reads a job's data into its buffer, and returns the reply.
func (c *conn) readJob(j *job) ([][]byte, error) {
	h, n := c.sess.dataHeaderSize(), int(j.req.n)
	if err := c.export.ReadAt(j.buf.b[h:h+n], j.req.off); err != nil {
		return nil, err
	}
	if n <= inlineMax {
		return j.whole(j.buf.b[:c.sess.finishRead(j.buf.b, &j.req, h, n)]), nil
	}
	return c.sess.layOut(j), nil
}

// layOut makes a reply of the data of a long read, which lie in the job's buffer behind room for one header. Runs of
// zeros become holes: they are left out, and the headers that are needed instead take their place in the buffer.
func (s *session) layOut(j *job) [][]byte {
	r, p, segs := &j.req, j.buf.b, j.segs[:0]
	h, n := s.dataHeaderSize(), int(r.n)
	start := 0 // of the segment that grows
	for at := 0; at < n; {
		size, hole := n, false
		if s.maySendHoles(r) {
			size, hole = zeroRun(p[h+at : h+n])
		}
		flags := uint16(0)
		if at+size == n {
			flags = nbdproto.ReplyFlagDone
		}
		off := r.off + int64(at)
		switch {
		case !hole:
			s.putDataHeader(p[at:], r, flags, off, size) // ends where the data begin
		case at+size == n:
			// After data, or alone: the chunk follows what is there.
			w := at
			if at > 0 {
				w += h
			}
			w += s.putHole(p[w:], r, flags, off, size)
			j.segs = append(segs, p[start:w])
			return j.segs
		default:
			// The chunk goes to the end of the run, before the header of the data that follow.
			if at > 0 {
				segs = append(segs, p[start:h+at])
			}
			start = at + size - s.holeSize()
			s.putHole(p[start:], r, flags, off, size)
		}
		at += size
	}
	j.segs = append(segs, p[start:h+n])
	return j.segs
}

// zeroRun returns the length of the data, or of the hole, that p begins with.
func zeroRun(p []byte) (n int, hole bool) {
	hole = isHole(p)
	for n < len(p) && isHole(p[n:]) == hole {
		n += min(minHole, len(p)-n)
	}
	return n, hole
}

// isHole says whether p begins with a whole unit of zeros.
func isHole(p []byte) bool { return len(p) >= minHole && isZero(p[:minHole]) }
