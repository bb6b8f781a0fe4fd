package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"lsad/internal/nbdproto"
)

// client is a client of our own: it can say what real ones would not, and speaks extended headers, which the
// common ones do not yet.
type client struct {
	t        testing.TB
	nc       net.Conn
	mode     mode
	size     int64
	flags    uint16
	contexts map[uint32]string
}

// mode is the kind of headers in use.
type mode int

const (
	simple mode = iota
	structured
	extended
)

var modes = []mode{simple, structured, extended}

func (m mode) String() string { return [...]string{"simple", "structured", "extended"}[m] }

func (c *client) write(p []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(p); err != nil {
		c.t.Fatalf("writing: %v", err)
	}
}

func (c *client) read(n int) []byte {
	c.t.Helper()
	p := make([]byte, n)
	if _, err := io.ReadFull(c.nc, p); err != nil {
		c.t.Fatalf("reading %d bytes: %v", n, err)
	}
	return p
}

// closed checks that the server hangs up and sends nothing before.
func (c *client) closed() {
	c.t.Helper()
	p, err := io.ReadAll(c.nc)
	if len(p) > 0 {
		c.t.Fatalf("%d more bytes before the end: %x", len(p), p)
	}
	if err != nil && !isReset(err) {
		c.t.Fatalf("waiting for the end: %v", err)
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

func (c *client) greet(flags uint32) {
	c.t.Helper()
	want := []byte("NBDMAGICIHAVEOPT\x00\x03")
	if got := c.read(18); !bytes.Equal(got, want) {
		c.t.Fatalf("greeting %x, want %x", got, want)
	}
	c.write(binary.BigEndian.AppendUint32(nil, flags))
}

type optReply struct {
	typ  uint32
	data []byte
}

func option(opt uint32, data []byte) []byte {
	p := append([]byte("IHAVEOPT"), 0, 0, 0, 0, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(p[8:], opt)
	binary.BigEndian.PutUint32(p[12:], uint32(len(data)))
	return append(p, data...)
}

// option sends an option and returns the replies up to the last one.
func (c *client) option(opt uint32, data []byte) []optReply {
	c.t.Helper()
	c.write(option(opt, data))
	return c.optReplies(opt)
}

func (c *client) optReplies(opt uint32) []optReply {
	c.t.Helper()
	var list []optReply
	for {
		h := c.read(20)
		if m := binary.BigEndian.Uint64(h); m != 0x3e889045565a9 {
			c.t.Fatalf("option reply magic %#x", m)
		}
		if o := binary.BigEndian.Uint32(h[8:]); o != opt {
			c.t.Fatalf("reply to option %d, want %d", o, opt)
		}
		r := optReply{typ: binary.BigEndian.Uint32(h[12:])}
		r.data = c.read(int(binary.BigEndian.Uint32(h[16:])))
		list = append(list, r)
		if r.typ == nbdproto.RepAck || r.typ >= 1<<31 {
			return list
		}
	}
}

// ack sends an option that must be answered with nothing but an ACK.
func (c *client) ack(opt uint32, data []byte) {
	c.t.Helper()
	if r := c.option(opt, data); len(r) != 1 || r[0].typ != nbdproto.RepAck {
		c.t.Fatalf("option %d: %x", opt, r)
	}
}

func str(s string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }

func infoData(name string, wanted ...uint16) []byte {
	p := binary.BigEndian.AppendUint16(str(name), uint16(len(wanted)))
	for _, w := range wanted {
		p = binary.BigEndian.AppendUint16(p, w)
	}
	return p
}

func metaData(name string, queries ...string) []byte {
	p := binary.BigEndian.AppendUint32(str(name), uint32(len(queries)))
	for _, q := range queries {
		p = append(p, str(q)...)
	}
	return p
}

// setMeta selects metadata contexts.
func (c *client) setMeta(name string, queries ...string) {
	c.t.Helper()
	c.contexts = map[uint32]string{}
	replies := c.option(nbdproto.OptSetMetaContext, metaData(name, queries...))
	for _, r := range replies[:len(replies)-1] {
		c.contexts[binary.BigEndian.Uint32(r.data)] = string(r.data[4:])
	}
	if last := replies[len(replies)-1]; last.typ != nbdproto.RepAck {
		c.t.Fatalf("SET_META_CONTEXT: %#x %s", last.typ, last.data)
	}
}

// enter negotiates the mode and begins transmission.
func (c *client) enter(m mode, name string, queries ...string) {
	c.t.Helper()
	c.greet(nbdproto.FlagFixedNewstyle | nbdproto.FlagNoZeroes)
	c.mode = m
	switch m {
	case structured:
		c.ack(nbdproto.OptStructuredReply, nil)
	case extended:
		c.ack(nbdproto.OptExtendedHeaders, nil)
	}
	if len(queries) > 0 {
		c.setMeta(name, queries...)
	}
	c.goTo(name)
}

func (c *client) goTo(name string) {
	c.t.Helper()
	replies := c.option(nbdproto.OptGo, infoData(name))
	for _, r := range replies {
		if r.typ >= 1<<31 {
			c.t.Fatalf("GO: %#x %s", r.typ, r.data)
		}
		if r.typ == nbdproto.RepInfo && binary.BigEndian.Uint16(r.data) == nbdproto.InfoExport {
			c.size = int64(binary.BigEndian.Uint64(r.data[2:]))
			c.flags = binary.BigEndian.Uint16(r.data[10:])
		}
	}
}

// req is a request as a test writes it.
type req struct {
	flags  uint16
	cmd    uint16
	cookie uint64
	off    uint64
	n      uint64 // effect length; ignored where there is a payload
	data   []byte // payload
}

// bytes is the request on the wire. A payload gets the flag that extended headers want.
func (r req) bytes(m mode) []byte {
	var p []byte
	n := r.n
	if r.data != nil {
		n = uint64(len(r.data))
	}
	if m == extended {
		if r.data != nil {
			r.flags |= nbdproto.CmdFlagPayloadLen
		}
		p = binary.BigEndian.AppendUint32(p, 0x21e41c71)
	} else {
		p = binary.BigEndian.AppendUint32(p, 0x25609513)
	}
	p = binary.BigEndian.AppendUint16(p, r.flags)
	p = binary.BigEndian.AppendUint16(p, r.cmd)
	p = binary.BigEndian.AppendUint64(p, r.cookie)
	p = binary.BigEndian.AppendUint64(p, r.off)
	if m == extended {
		p = binary.BigEndian.AppendUint64(p, n)
	} else {
		p = binary.BigEndian.AppendUint32(p, uint32(n))
	}
	return append(p, r.data...)
}

func (c *client) send(r req) { c.t.Helper(); c.write(r.bytes(c.mode)) }

// chunk is one message of the server in the transmission phase.
type chunk struct {
	simple bool
	flags  uint16
	typ    uint16
	cookie uint64
	off    uint64 // extended headers only
	errno  uint32
	data   []byte // payload, without a simple reply's
}

func (k chunk) done() bool { return k.simple || k.flags&nbdproto.ReplyFlagDone != 0 }

// chunk reads one message. The data of simple replies to reads are the caller's.
func (c *client) chunk() (chunk, error) {
	var m [4]byte
	if _, err := io.ReadFull(c.nc, m[:]); err != nil {
		return chunk{}, err
	}
	magic := binary.BigEndian.Uint32(m[:])
	switch {
	case magic == 0x67446698 && c.mode != extended:
		h := c.read(12)
		return chunk{simple: true, errno: binary.BigEndian.Uint32(h), cookie: binary.BigEndian.Uint64(h[4:])}, nil
	case magic == 0x668e33ef && c.mode == structured:
		h := c.read(16)
		k := chunk{flags: binary.BigEndian.Uint16(h), typ: binary.BigEndian.Uint16(h[2:]), cookie: binary.BigEndian.Uint64(h[4:])}
		k.data = c.read(int(binary.BigEndian.Uint32(h[12:])))
		return k, c.checkChunk(&k)
	case magic == 0x6e8a278c && c.mode == extended:
		h := c.read(28)
		k := chunk{flags: binary.BigEndian.Uint16(h), typ: binary.BigEndian.Uint16(h[2:]), cookie: binary.BigEndian.Uint64(h[4:])}
		k.off = binary.BigEndian.Uint64(h[12:])
		k.data = c.read(int(binary.BigEndian.Uint64(h[20:])))
		return k, c.checkChunk(&k)
	}
	return chunk{}, fmt.Errorf("magic %#x in mode %v", magic, c.mode)
}

// checkChunk holds a chunk against the layout of its type.
func (c *client) checkChunk(k *chunk) error {
	n := len(k.data)
	bad := k.flags&^nbdproto.ReplyFlagDone != 0
	switch k.typ {
	case nbdproto.ReplyNone:
		bad = bad || n != 0 || !k.done()
	case nbdproto.ReplyOffsetData:
		bad = bad || n < 9
	case nbdproto.ReplyOffsetHole:
		bad = bad || n != 12 || binary.BigEndian.Uint32(k.data[8:]) == 0
	case nbdproto.ReplyBlockStatus:
		bad = bad || c.mode != structured || n < 12 || (n-4)%8 != 0
	case nbdproto.ReplyBlockStatusExt:
		bad = bad || c.mode != extended || n < 24 || (n-8)%16 != 0 || int(binary.BigEndian.Uint32(k.data[4:]))*16+8 != n
	case nbdproto.ReplyError, nbdproto.ReplyErrorOffset:
		if n < 6 {
			return fmt.Errorf("error chunk of %d bytes", n)
		}
		k.errno = binary.BigEndian.Uint32(k.data)
		rest := n - 6 - int(binary.BigEndian.Uint16(k.data[4:]))
		bad = bad || k.errno == 0 || k.typ == nbdproto.ReplyError && rest != 0 || k.typ == nbdproto.ReplyErrorOffset && rest != 8
	default:
		bad = true
	}
	if bad {
		return fmt.Errorf("malformed chunk %+v", *k)
	}
	return nil
}

// answer is a whole reply.
type answer struct {
	errno  uint32
	text   string
	errOff uint64
	data   []byte
	chunks int
	holes  int
	status map[uint32][]extent
}

type extent struct {
	n      uint64
	status uint64
}

// gather adds a chunk to the answer of request r.
func (a *answer) gather(c *client, r req, k chunk) error {
	a.chunks++
	if c.mode == extended && k.off != r.off {
		return fmt.Errorf("offset %d in the reply to a request at %d", k.off, r.off)
	}
	if k.errno != 0 {
		a.errno = k.errno
		if !k.simple {
			n := int(binary.BigEndian.Uint16(k.data[4:]))
			a.text = string(k.data[6 : 6+n])
			if k.typ == nbdproto.ReplyErrorOffset {
				a.errOff = binary.BigEndian.Uint64(k.data[6+n:])
			}
		}
		return nil
	}
	if r.cmd == nbdproto.CmdRead && a.data == nil {
		a.data = make([]byte, r.n)
	}
	switch {
	case k.simple && r.cmd == nbdproto.CmdRead:
		if c.mode != simple {
			return errors.New("simple reply to a read")
		}
		_, err := io.ReadFull(c.nc, a.data)
		return err
	case k.typ == nbdproto.ReplyOffsetData || k.typ == nbdproto.ReplyOffsetHole:
		at := binary.BigEndian.Uint64(k.data) - r.off
		n := uint64(len(k.data) - 8)
		if k.typ == nbdproto.ReplyOffsetHole {
			a.holes++
			n = uint64(binary.BigEndian.Uint32(k.data[8:]))
		}
		if r.cmd != nbdproto.CmdRead || at > r.n || n > r.n-at {
			return fmt.Errorf("content of %d bytes at %d in the reply to %+v", n, at, r)
		}
		if k.typ == nbdproto.ReplyOffsetData {
			copy(a.data[at:], k.data[8:])
		}
	case k.typ == nbdproto.ReplyBlockStatus || k.typ == nbdproto.ReplyBlockStatusExt:
		a.gatherStatus(k)
	}
	return nil
}

func (a *answer) gatherStatus(k chunk) {
	if a.status == nil {
		a.status = map[uint32][]extent{}
	}
	id := binary.BigEndian.Uint32(k.data)
	if k.typ == nbdproto.ReplyBlockStatus {
		for p := k.data[4:]; len(p) > 0; p = p[8:] {
			a.status[id] = append(a.status[id], extent{uint64(binary.BigEndian.Uint32(p)), uint64(binary.BigEndian.Uint32(p[4:]))})
		}
		return
	}
	for p := k.data[8:]; len(p) > 0; p = p[16:] {
		a.status[id] = append(a.status[id], extent{binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])})
	}
}

// do sends one request and returns its answer.
func (c *client) do(r req) answer {
	c.t.Helper()
	c.send(r)
	return c.answer(r)
}

func (c *client) answer(r req) answer {
	c.t.Helper()
	var a answer
	for {
		k, err := c.chunk()
		if err == nil && k.cookie != r.cookie {
			err = fmt.Errorf("cookie %d, want %d", k.cookie, r.cookie)
		}
		if err == nil {
			err = a.gather(c, r, k)
		}
		if err != nil {
			c.t.Fatalf("reply to %+v: %v", r, err)
		}
		if k.done() {
			return a
		}
	}
}

// ok is do for requests that must succeed.
func (c *client) ok(r req) answer {
	c.t.Helper()
	a := c.do(r)
	if a.errno != 0 {
		c.t.Fatalf("%+v: error %d %q", r, a.errno, a.text)
	}
	return a
}

// disconnect says goodbye and waits for the server to hang up.
func (c *client) disconnect() {
	c.t.Helper()
	c.send(req{cmd: nbdproto.CmdDisc})
	c.closed()
}

// testDeadline keeps a broken test from hanging.
const testDeadline = time.Minute
