package qemu

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net"
	"sync"
)

// message is what a destination says, other than what pages it wants.
type message struct {
	kind   uint16
	value  uint32   // of PONG, SHUT and RESUME_ACK
	block  Block    // of a bitmap
	bitmap []uint64 // pages received, the lowest first
}

// link is one connection to a destination. Its goroutine reads the return path: requests for pages go to the
// demand queue, everything else to messages. It ends when the connection does; err is why, once messages is closed.
type link struct {
	conn     net.Conn
	messages chan message
	quit     chan struct{} // closed by close
	err      error
	wg       sync.WaitGroup
}

func newLink(conn net.Conn, s *session) *link {
	tune(conn)
	l := &link{conn: conn, messages: make(chan message, 4), quit: make(chan struct{})}
	shelter := s.shelter
	l.wg.Go(func() {
		defer close(l.messages)
		l.err = l.read(s, shelter)
	})
	return l
}

// close ends the connection and waits for its goroutine.
func (l *link) close() {
	close(l.quit)
	l.conn.Close()
	l.wg.Wait()
}

func (l *link) read(s *session, shelter *shelter) error {
	p := rpParser{r: newReader(l.conn, 64<<10), state: s.state, pageSize: s.pageSize}
	p.r.end = fmt.Errorf("%w: it closed the connection", ErrLost)
	loaded := false
	for {
		m, want, err := p.next()
		switch {
		case err != nil:
			return connError(err)
		case want.count > 0:
			if loaded && shelter != nil {
				shelter.sign() // before the sender wakes: it tells
			}
			s.demand.push(want)
			continue
		}
		loaded = loaded || isPong(pingLoaded)(m)
		select {
		case l.messages <- m:
		case <-l.quit:
			return nil
		}
	}
}

// rpParser takes the return path apart.
type rpParser struct {
	r        *reader
	state    *State
	pageSize func(Block) int64
	last     Block // of the request before
	hasLast  bool
	buf      [maxRPLength]byte
}

// next reads one message: a request for pages, if want has any, or another one.
func (p *rpParser) next() (m message, want pageRange, err error) {
	m.kind = p.r.u16()
	n := int(p.r.u16())
	if n > maxRPLength {
		return m, want, malformed("a message of %d bytes on the return path", n)
	}
	data := p.buf[:n]
	if !p.r.full(data) {
		return m, want, p.r.err
	}
	switch {
	case (m.kind == rpShut || m.kind == rpPong || m.kind == rpResumeAck) && n == 4:
		m.value = binary.BigEndian.Uint32(data)
	case m.kind == rpReqPages && n == 12:
		want, err = p.request(data)
	case m.kind == rpReqPagesID && n > 13 && n == 13+int(data[12]):
		if p.last, err = p.block(data[13:]); err == nil {
			p.hasLast = true
			want, err = p.request(data)
		}
	case m.kind == rpRecvBitmap && n > 1 && n == 1+int(data[0]):
		if m.block, err = p.block(data[1:]); err == nil {
			m.bitmap, err = p.bitmap(m.block)
		}
	default:
		err = malformed("message %d with %d bytes on the return path", m.kind, n)
	}
	return m, want, err
}

// block finds a block of the VM. It does not allocate.
func (p *rpParser) block(name []byte) (Block, error) {
	if p.hasLast && string(name) == p.last.Name {
		return p.last, nil
	}
	for i := range p.state.Blocks {
		if p.state.Blocks[i].Name == string(name) {
			return p.state.Blocks[i], nil
		}
	}
	return Block{}, malformed("the destination speaks of a RAM block %q, which the VM has not", name)
}

// request checks what pages are asked for.
func (p *rpParser) request(data []byte) (pageRange, error) {
	start, n := binary.BigEndian.Uint64(data), int64(binary.BigEndian.Uint32(data[8:]))
	b, unit := p.last, int64(PageSize)
	if p.hasLast {
		unit = p.pageSize(b)
	}
	if !p.hasLast || n == 0 || n%unit != 0 || start%uint64(unit) != 0 || start >= uint64(b.Size) || n > b.Size-int64(start) {
		return pageRange{}, malformed("the destination asks for %d bytes at %#x of the RAM block %q", n, start, b.Name)
	}
	return pageRange{(b.Offset + int64(start)) / PageSize, n / PageSize}, nil
}

// bitmap reads which pages of a block the destination has.
func (p *rpParser) bitmap(b Block) ([]uint64, error) {
	words := (b.Size/PageSize + 63) / 64
	if n := p.r.u64(); p.r.err == nil && n != uint64(words*8) {
		return nil, malformed("the bitmap of the RAM block %q has %d bytes instead of %d", b.Name, n, words*8)
	}
	raw := p.r.bytes(int(words * 8))
	mark := p.r.u64()
	if p.r.err != nil {
		return nil, p.r.err
	}
	if mark != bitmapEndMark {
		return nil, malformed("the bitmap of the RAM block %q has no end mark", b.Name)
	}
	bitmap := make([]uint64, words)
	for i := range bitmap {
		bitmap[i] = binary.LittleEndian.Uint64(raw[i*8:])
	}
	if tail := b.Size / PageSize % 64; tail != 0 && bits.Len64(bitmap[words-1]) > int(tail) {
		return nil, malformed("the bitmap of the RAM block %q has pages that the block has not", b.Name)
	}
	return bitmap, nil
}
