package nbd

import (
	"encoding/binary"

	"lsad/internal/nbdproto"
)

// chunkHeader writes the header of a structured or extended chunk with n bytes of payload to p, and returns
// its length.
func (s *session) chunkHeader(p []byte, r *request, flags, typ uint16, n int) int {
	if s.extended {
		binary.BigEndian.PutUint32(p, nbdproto.MagicExtendedReply)
		binary.BigEndian.PutUint16(p[4:], flags)
		binary.BigEndian.PutUint16(p[6:], typ)
		binary.BigEndian.PutUint64(p[8:], r.cookie)
		binary.BigEndian.PutUint64(p[16:], r.rawOff)
		binary.BigEndian.PutUint64(p[24:], uint64(n))
		return nbdproto.ExtendedReplySize
	}
	binary.BigEndian.PutUint32(p, nbdproto.MagicStructuredReply)
	binary.BigEndian.PutUint16(p[4:], flags)
	binary.BigEndian.PutUint16(p[6:], typ)
	binary.BigEndian.PutUint64(p[8:], r.cookie)
	binary.BigEndian.PutUint32(p[16:], uint32(n))
	return nbdproto.StructuredReplySize
}

func simpleHeader(p []byte, r *request, code uint32) int {
	binary.BigEndian.PutUint32(p, nbdproto.MagicSimpleReply)
	binary.BigEndian.PutUint32(p[4:], code)
	binary.BigEndian.PutUint64(p[8:], r.cookie)
	return nbdproto.SimpleReplySize
}

// putSuccess writes the reply of a request that succeeded and has no data. Where structured replies are in
// use the shorter simple one is still allowed, except for reads.
func (s *session) putSuccess(p []byte, r *request) int {
	if s.extended || s.structured && (r.cmd == nbdproto.CmdRead || r.cmd == nbdproto.CmdBlockStatus) {
		return s.chunkHeader(p, r, nbdproto.ReplyFlagDone, nbdproto.ReplyNone, 0)
	}
	return simpleHeader(p, r, 0)
}

// dataHeaderSize is the length of what comes before the data of a read.
func (s *session) dataHeaderSize() int {
	switch {
	case s.extended:
		return nbdproto.ExtendedReplySize + 8
	case s.structured:
		return nbdproto.StructuredReplySize + 8
	}
	return nbdproto.SimpleReplySize
}

// putDataHeader writes the header for n bytes of data at off.
func (s *session) putDataHeader(p []byte, r *request, flags uint16, off int64, n int) int {
	if !s.extended && !s.structured {
		return simpleHeader(p, r, 0)
	}
	h := s.chunkHeader(p, r, flags, nbdproto.ReplyOffsetData, n+8)
	binary.BigEndian.PutUint64(p[h:], uint64(off))
	return h + 8
}

// putHole writes a chunk that says that n bytes at off are zeros.
func (s *session) putHole(p []byte, r *request, flags uint16, off int64, n int) int {
	h := s.chunkHeader(p, r, flags, nbdproto.ReplyOffsetHole, 12)
	binary.BigEndian.PutUint64(p[h:], uint64(off))
	binary.BigEndian.PutUint32(p[h+8:], uint32(n))
	return h + 12
}

// holeSize is the length of a hole chunk.
func (s *session) holeSize() int {
	if s.extended {
		return nbdproto.ExtendedReplySize + 12
	}
	return nbdproto.StructuredReplySize + 12
}

// maySendHoles says whether holes in the data of this read can be told apart.
func (s *session) maySendHoles(r *request) bool {
	return (s.extended || s.structured) && !r.has(nbdproto.CmdFlagDF)
}

// appendError appends the reply of a request that failed.
func (s *session) appendError(p []byte, r *request, err error) []byte {
	code := errorCode(err, r.has(nbdproto.CmdFlagFastZero))
	var head [nbdproto.ExtendedReplySize]byte
	if !s.extended && !s.structured {
		return append(p, head[:simpleHeader(head[:], r, code)]...)
	}
	text := errorText(err)
	off, hasOff := errorOffset(err, r)
	typ, n := uint16(nbdproto.ReplyError), 6+len(text)
	if hasOff {
		typ, n = nbdproto.ReplyErrorOffset, n+8
	}
	p = append(p, head[:s.chunkHeader(head[:], r, nbdproto.ReplyFlagDone, typ, n)]...)
	p = binary.BigEndian.AppendUint32(p, code)
	p = binary.BigEndian.AppendUint16(p, uint16(len(text)))
	p = append(p, text...)
	if hasOff {
		p = binary.BigEndian.AppendUint64(p, uint64(off))
	}
	return p
}

// maxErrorReply is the longest that appendError makes, in bytes.
const maxErrorReply = nbdproto.ExtendedReplySize + 6 + maxErrorText + 8
