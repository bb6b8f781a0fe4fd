package nbd

import "encoding/binary"

// chunkHeader writes the header of a structured or extended chunk with n bytes of payload to p, and returns
// its length.
func (s *session) chunkHeader(p []byte, r *request, flags, typ uint16, n int) int {
	if s.extended {
		binary.BigEndian.PutUint32(p, magicExtendedReply)
		binary.BigEndian.PutUint16(p[4:], flags)
		binary.BigEndian.PutUint16(p[6:], typ)
		binary.BigEndian.PutUint64(p[8:], r.cookie)
		binary.BigEndian.PutUint64(p[16:], r.rawOff)
		binary.BigEndian.PutUint64(p[24:], uint64(n))
		return extendedReplySize
	}
	binary.BigEndian.PutUint32(p, magicStructuredReply)
	binary.BigEndian.PutUint16(p[4:], flags)
	binary.BigEndian.PutUint16(p[6:], typ)
	binary.BigEndian.PutUint64(p[8:], r.cookie)
	binary.BigEndian.PutUint32(p[16:], uint32(n))
	return structuredReplySize
}

func simpleHeader(p []byte, r *request, code uint32) int {
	binary.BigEndian.PutUint32(p, magicSimpleReply)
	binary.BigEndian.PutUint32(p[4:], code)
	binary.BigEndian.PutUint64(p[8:], r.cookie)
	return simpleReplySize
}

// putSuccess writes the reply of a request that succeeded and has no data. Where structured replies are in
// use the shorter simple one is still allowed, except for reads.
func (s *session) putSuccess(p []byte, r *request) int {
	if s.extended || s.structured && (r.cmd == cmdRead || r.cmd == cmdBlockStatus) {
		return s.chunkHeader(p, r, replyFlagDone, replyNone, 0)
	}
	return simpleHeader(p, r, 0)
}

// dataHeaderSize is the length of what comes before the data of a read.
func (s *session) dataHeaderSize() int {
	switch {
	case s.extended:
		return extendedReplySize + 8
	case s.structured:
		return structuredReplySize + 8
	}
	return simpleReplySize
}

// putDataHeader writes the header for n bytes of data at off.
func (s *session) putDataHeader(p []byte, r *request, flags uint16, off int64, n int) int {
	if !s.extended && !s.structured {
		return simpleHeader(p, r, 0)
	}
	h := s.chunkHeader(p, r, flags, replyOffsetData, n+8)
	binary.BigEndian.PutUint64(p[h:], uint64(off))
	return h + 8
}

// putHole writes a chunk that says that n bytes at off are zeros.
func (s *session) putHole(p []byte, r *request, flags uint16, off int64, n int) int {
	h := s.chunkHeader(p, r, flags, replyOffsetHole, 12)
	binary.BigEndian.PutUint64(p[h:], uint64(off))
	binary.BigEndian.PutUint32(p[h+8:], uint32(n))
	return h + 12
}

// holeSize is the length of a hole chunk.
func (s *session) holeSize() int {
	if s.extended {
		return extendedReplySize + 12
	}
	return structuredReplySize + 12
}

// maySendHoles says whether holes in the data of this read can be told apart.
func (s *session) maySendHoles(r *request) bool {
	return (s.extended || s.structured) && !r.has(cmdFlagDF)
}

// appendError appends the reply of a request that failed.
func (s *session) appendError(p []byte, r *request, err error) []byte {
	code := errorCode(err, r.has(cmdFlagFastZero))
	var head [extendedReplySize]byte
	if !s.extended && !s.structured {
		return append(p, head[:simpleHeader(head[:], r, code)]...)
	}
	text := errorText(err)
	off, hasOff := errorOffset(err, r)
	typ, n := uint16(replyError), 6+len(text)
	if hasOff {
		typ, n = replyErrorOffset, n+8
	}
	p = append(p, head[:s.chunkHeader(head[:], r, replyFlagDone, typ, n)]...)
	p = binary.BigEndian.AppendUint32(p, code)
	p = binary.BigEndian.AppendUint16(p, uint16(len(text)))
	p = append(p, text...)
	if hasOff {
		p = binary.BigEndian.AppendUint64(p, uint64(off))
	}
	return p
}

// maxErrorReply is the longest that appendError makes, in bytes.
const maxErrorReply = extendedReplySize + 6 + maxErrorText + 8
