package nbdclient

import (
	"encoding/binary"
	"io"

	"lsad/internal/nbdproto"
)

// chunk is the header of a structured or extended reply.
type chunk struct {
	flags, typ uint16
	cookie     uint64
	off        uint64 // only in extended headers, and checked there
	n          int64  // payload, in bytes
}

func (r *receiver) structured(size int) error {
	if _, err := io.ReadFull(r.r, r.head[4:size]); err != nil {
		return err
	}
	ch := chunk{
		flags: binary.BigEndian.Uint16(r.head[4:]), typ: binary.BigEndian.Uint16(r.head[6:]),
		cookie: binary.BigEndian.Uint64(r.head[8:]),
	}
	n := uint64(binary.BigEndian.Uint32(r.head[16:]))
	if size == nbdproto.ExtendedReplySize {
		ch.off = binary.BigEndian.Uint64(r.head[16:])
		n = binary.BigEndian.Uint64(r.head[24:])
	}
	if n > nbdproto.MaxPayload+8 {
		return protocolError("a reply with %d bytes", n)
	}
	ch.n = int64(n)
	if err := r.claim(ch.cookie); err != nil {
		return err
	}
	k := r.current
	if size == nbdproto.ExtendedReplySize && ch.off != uint64(k.off) {
		return protocolError("a reply for offset %d to a request for offset %d", ch.off, k.off)
	}
	if err := r.payload(&ch); err != nil {
		return err
	}
	finished := ch.flags&nbdproto.ReplyFlagDone != 0
	if finished {
		if err := k.complete(); err != nil {
			return err
		}
	}
	r.release(finished)
	return nil
}

// payload reads what follows a chunk's header.
func (r *receiver) payload(ch *chunk) error {
	switch {
	case ch.typ == nbdproto.ReplyNone:
		if ch.n != 0 || ch.flags&nbdproto.ReplyFlagDone == 0 {
			return protocolError("an empty chunk that is not the last, or not empty")
		}
		return nil
	case ch.typ == nbdproto.ReplyOffsetData:
		return r.offsetData(ch)
	case ch.typ == nbdproto.ReplyOffsetHole:
		return r.offsetHole(ch)
	case ch.typ == nbdproto.ReplyBlockStatus && !r.c.info.Extended, ch.typ == nbdproto.ReplyBlockStatusExt && r.c.info.Extended:
		return r.blockStatus(ch)
	case ch.typ&nbdproto.ReplyErrorBit != 0:
		return r.failure(ch)
	}
	return protocolError("a chunk of type %d", ch.typ)
}

func (r *receiver) offsetData(ch *chunk) error {
	if ch.n <= 8 {
		return protocolError("a data chunk of %d bytes", ch.n)
	}
	if _, err := io.ReadFull(r.r, r.head[:8]); err != nil {
		return err
	}
	at, err := r.current.claim(binary.BigEndian.Uint64(r.head[:]), ch.n-8)
	if err != nil {
		return err
	}
	return r.data(at, ch.n-8)
}

func (r *receiver) offsetHole(ch *chunk) error {
	if ch.n != 12 {
		return protocolError("a hole chunk of %d bytes", ch.n)
	}
	if _, err := io.ReadFull(r.r, r.head[:12]); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(r.head[8:]))
	at, err := r.current.claim(binary.BigEndian.Uint64(r.head[:]), n)
	if err == nil && r.wanted() {
		clear(r.current.p[at : at+n])
	}
	return err
}

// take reads a payload that is not data.
func (r *receiver) take(n int64) ([]byte, error) {
	if int64(cap(r.small)) < n {
		r.small = make([]byte, n)
	}
	r.small = r.small[:n]
	_, err := io.ReadFull(r.r, r.small)
	return r.small, err
}

func (r *receiver) blockStatus(ch *chunk) error {
	k := r.current
	head, each := int64(4), int64(8)
	if r.c.info.Extended {
		head, each = 8, 16
	}
	if k.cmd != nbdproto.CmdBlockStatus || k.status || ch.n > maxStatusPayload || ch.n < head+each || (ch.n-head)%each != 0 {
		return protocolError("a block status chunk of %d bytes in answer to a %s", ch.n, k.op())
	}
	p, err := r.take(ch.n)
	if err != nil {
		return err
	}
	if id := binary.BigEndian.Uint32(p); id != r.c.info.context {
		return protocolError("block status of context %d, which was not negotiated", id)
	}
	if r.c.info.Extended {
		if count := int64(binary.BigEndian.Uint32(p[4:])); count != (ch.n-head)/each {
			return protocolError("block status says %d ranges and has %d", count, (ch.n-head)/each)
		}
	}
	k.status = true
	return r.extents(p[head:], each)
}

func (r *receiver) extents(p []byte, each int64) (err error) {
	for told := int64(0); len(p) > 0; p = p[each:] {
		length, status := uint64(binary.BigEndian.Uint32(p)), uint64(binary.BigEndian.Uint32(p[4:]))
		if each == 16 {
			length, status = binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])
		}
		if told, err = r.current.addExtent(told, int64(min(length, 1<<62)), status); err != nil {
			return err
		}
	}
	return nil
}

// failure takes in an error chunk. The first one of a call counts.
func (r *receiver) failure(ch *chunk) error {
	if ch.n < 6 || ch.n > maxErrorPayload {
		return protocolError("an error chunk of %d bytes", ch.n)
	}
	p, err := r.take(ch.n)
	if err != nil {
		return err
	}
	text := int(binary.BigEndian.Uint16(p[4:]))
	if text > len(p)-6 {
		return protocolError("an error chunk of %d bytes with a text of %d", ch.n, text)
	}
	v := binary.BigEndian.Uint32(p)
	if v == 0 {
		return protocolError("an error chunk without an error")
	}
	if k := r.current; k.err == nil {
		k.err = &RemoteError{Op: k.op(), Off: k.off, N: k.n, Errno: errno(v), Text: printable(p[6 : 6+text])}
	}
	return nil
}
