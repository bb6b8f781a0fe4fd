package nbd

import (
	"encoding/binary"

	"lsad/internal/nbdproto"
)

// request is one request header, checked as far as noted.
type request struct {
	flags  uint16
	cmd    uint16
	cookie uint64
	off    int64
	n      int64 // effect length; for a write also the payload's

	// payload is how many bytes follow the header.
	payload int64
	// contexts limits a block status request: bit i for session.contexts[i]. 0 is all of them.
	contexts uint64
	// rawOff is the offset as received, which an extended reply repeats.
	rawOff uint64
}

func (r *request) has(flag uint16) bool { return r.flags&flag != 0 }

// parseRequest reads the header at the start of p, which holds at least a whole one. ok is false if the magic
// is wrong: from there on nothing can be made of the stream.
func (r *request) parse(p []byte, extended bool) (ok bool) {
	magic := uint32(nbdproto.MagicRequest)
	if extended {
		magic = nbdproto.MagicExtendedRequest
	}
	if binary.BigEndian.Uint32(p) != magic {
		return false
	}
	r.flags = binary.BigEndian.Uint16(p[4:])
	r.cmd = binary.BigEndian.Uint16(p[6:])
	r.cookie = binary.BigEndian.Uint64(p[8:])
	r.rawOff = binary.BigEndian.Uint64(p[16:])
	n := uint64(0)
	if extended {
		n = binary.BigEndian.Uint64(p[24:])
	} else {
		n = uint64(binary.BigEndian.Uint32(p[24:]))
	}
	// Nothing is as big as 2^63 bytes: such values are cut to what is certainly out of bounds.
	r.off, r.n = clampInt64(r.rawOff), clampInt64(n)
	r.payload, r.contexts = 0, 0
	switch {
	case extended && r.has(nbdproto.CmdFlagPayloadLen):
		r.payload = r.n
	case !extended && r.cmd == nbdproto.CmdWrite:
		r.payload = r.n
	}
	return true
}

func clampInt64(v uint64) int64 {
	const limit = 1<<63 - 1
	return int64(min(v, limit))
}

// allowedFlags are the flags that each command may carry. FUA is allowed with all of them, since it was
// advertised.
var allowedFlags = [...]uint16{
	nbdproto.CmdRead:        nbdproto.CmdFlagFUA | nbdproto.CmdFlagDF,
	nbdproto.CmdWrite:       nbdproto.CmdFlagFUA | nbdproto.CmdFlagPayloadLen,
	nbdproto.CmdDisc:        ^uint16(0),
	nbdproto.CmdFlush:       nbdproto.CmdFlagFUA,
	nbdproto.CmdTrim:        nbdproto.CmdFlagFUA,
	nbdproto.CmdCache:       nbdproto.CmdFlagFUA,
	nbdproto.CmdWriteZeroes: nbdproto.CmdFlagFUA | nbdproto.CmdFlagNoHole | nbdproto.CmdFlagFastZero,
	nbdproto.CmdBlockStatus: nbdproto.CmdFlagFUA | nbdproto.CmdFlagReqOne | nbdproto.CmdFlagPayloadLen,
}

// session is what negotiation settled.
type session struct {
	structured bool
	extended   bool // takes precedence over structured
	contexts   []activeContext
}

// check says why a request cannot be served, or nil. It looks at everything but a payload.
func (s *session) check(r *request, size int64, readOnly bool) *requestError {
	if int(r.cmd) >= len(allowedFlags) {
		return errBadCommand
	}
	allowed := allowedFlags[r.cmd]
	if !s.extended {
		allowed &^= nbdproto.CmdFlagPayloadLen
		if !s.structured {
			allowed &^= nbdproto.CmdFlagDF
		}
	}
	if r.flags&^allowed != 0 {
		return errBadFlags
	}
	switch r.cmd {
	case nbdproto.CmdRead:
		return checkRead(r, size)
	case nbdproto.CmdWrite:
		return s.checkWrite(r, size, readOnly)
	case nbdproto.CmdFlush:
		if r.off != 0 || r.n != 0 {
			return errFlushRange
		}
	case nbdproto.CmdTrim, nbdproto.CmdWriteZeroes:
		return checkDiscard(r, size, readOnly)
	case nbdproto.CmdCache:
		if !within(r.off, r.n, size) {
			return errReadBounds
		}
	case nbdproto.CmdBlockStatus:
		return s.checkStatus(r, size)
	}
	return nil
}

func within(off, n, size int64) bool { return off <= size && n <= size-off }

func checkRead(r *request, size int64) *requestError {
	if !within(r.off, r.n, size) {
		return errReadBounds
	}
	if r.n > MaxPayload {
		return errReadTooBig
	}
	return nil
}

func (s *session) checkWrite(r *request, size int64, readOnly bool) *requestError {
	switch {
	case s.extended && !r.has(nbdproto.CmdFlagPayloadLen):
		return errNoPayload
	case readOnly:
		return errReadOnly
	case r.n > MaxPayload:
		return errWriteTooBig
	case !within(r.off, r.n, size):
		return errWriteBounds
	}
	return nil
}

func checkDiscard(r *request, size int64, readOnly bool) *requestError {
	if readOnly {
		return errReadOnly
	}
	if !within(r.off, r.n, size) {
		if r.cmd == nbdproto.CmdTrim {
			return errReadBounds
		}
		return errWriteBounds
	}
	if r.has(nbdproto.CmdFlagFastZero) && r.n > 0 && !coversBlock(r.off, r.n, size) {
		return errNotFast
	}
	return nil
}

// coversBlock says whether the range holds a whole block, counting the export's last one. A smaller range
// takes a read-modify-write, which is no faster than a write.
func coversBlock(off, n, size int64) bool {
	first := (off + PreferredBlockSize - 1) / PreferredBlockSize * PreferredBlockSize
	end := off + n
	return end-first >= PreferredBlockSize || (end == size && first < end)
}

func (s *session) checkStatus(r *request, size int64) *requestError {
	if len(s.contexts) == 0 {
		return errNoContext
	}
	if r.payload > 0 {
		return nil // the effect length is in the payload
	}
	return checkStatusRange(r, size)
}

func checkStatusRange(r *request, size int64) *requestError {
	if r.n == 0 {
		return errZeroStatus
	}
	if !within(r.off, r.n, size) {
		return errReadBounds
	}
	return nil
}
