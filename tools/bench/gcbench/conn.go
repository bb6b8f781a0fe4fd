package gcbench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"lsad/internal/nbdclient"
	"lsad/internal/nbdproto"
)

// BlockSize is that of the requests of the load, bytes.
const BlockSize = 4096

// ErrData says that a read brought what was never written there.
var ErrData = errors.New("wrong data")

// maxInFlight requests of a connection; further ones wait.
const maxInFlight = 1024

// request is one in flight.
type request struct {
	start time.Time
	off   int64
	n     int // bytes
	read  bool
	timed bool
}

// Conn is one NBD connection with simple replies.
type Conn struct {
	conn  net.Conn
	done  chan struct{} // closed when the connection has ended
	free  chan uint32
	held  []uint32 // of them, out of use
	slots [maxInFlight]request

	mu   sync.Mutex
	cond sync.Cond
	out  []byte // requests to be sent
	err  error
	hist Histogram // of the requests that were timed

	wg sync.WaitGroup
}

// Dial connects to an export at a unix socket.
func Dial(ctx context.Context, socket, export string) (*Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	info, err := nbdclient.Handshake(ctx, raw, nbdclient.Options{Export: export})
	if err != nil {
		raw.Close()
		return nil, err
	}
	c := &Conn{conn: info.Conn, done: make(chan struct{}), free: make(chan uint32, maxInFlight)}
	c.cond.L = &c.mu
	for i := range uint32(maxInFlight) {
		c.free <- i
	}
	c.wg.Go(c.send)
	c.wg.Go(c.receive)
	return c, nil
}

// Close ends the connection, whatever is in flight.
func (c *Conn) Close() error {
	c.fail(net.ErrClosed)
	c.wg.Wait()
	return nil
}

// fail ends the connection. The first reason holds.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
		close(c.done)
		c.conn.Close()
	}
	c.cond.Broadcast()
	c.mu.Unlock()
}

func (c *Conn) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// limit is the most requests in flight from now on; nothing may be in flight.
func (c *Conn) limit(n int) {
	for _, s := range c.held {
		c.free <- s
	}
	c.held = c.held[:0]
	for range maxInFlight - n {
		c.held = append(c.held, <-c.free)
	}
}

// start queues a request that began at the given time. It waits while too many are in flight.
func (c *Conn) start(ctx context.Context, r request) error {
	var slot uint32
	select {
	case slot = <-c.free:
	case <-c.done:
		return c.failed()
	case <-ctx.Done():
		return ctx.Err()
	}
	c.slots[slot] = r
	cmd := uint16(nbdproto.CmdWrite)
	if r.read {
		cmd = nbdproto.CmdRead
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	p := binary.BigEndian.AppendUint32(c.out, nbdproto.MagicRequest)
	p = binary.BigEndian.AppendUint16(p, 0)
	p = binary.BigEndian.AppendUint16(p, cmd)
	p = binary.BigEndian.AppendUint64(p, uint64(slot))
	p = binary.BigEndian.AppendUint64(p, uint64(r.off))
	p = binary.BigEndian.AppendUint32(p, uint32(r.n))
	if !r.read {
		p = appendBlocks(p, r.off, r.n)
	}
	c.out = p
	c.cond.Signal()
	return nil
}

var filler [BlockSize - 8]byte

// appendBlocks appends what the blocks from off on hold: each begins with its own number, counted from 1.
func appendBlocks(p []byte, off int64, n int) []byte {
	for b := off / BlockSize; b < (off+int64(n))/BlockSize; b++ {
		p = binary.BigEndian.AppendUint64(p, uint64(b)+1)
		p = append(p, filler[:]...)
	}
	return p
}

// send writes what is queued, until the connection ends.
func (c *Conn) send() {
	var p []byte
	for {
		c.mu.Lock()
		for len(c.out) == 0 && c.err == nil {
			c.cond.Wait()
		}
		if c.err != nil {
			c.mu.Unlock()
			return
		}
		p, c.out = c.out, p[:0]
		c.mu.Unlock()
		if _, err := c.conn.Write(p); err != nil {
			c.fail(err)
			return
		}
	}
}

// receive reads replies, until the connection ends.
func (c *Conn) receive() {
	in := bufio.NewReaderSize(c.conn, 256<<10)
	for {
		if err := c.reply(in); err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *Conn) reply(in *bufio.Reader) error {
	var head [16]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return err
	}
	slot := binary.BigEndian.Uint64(head[8:])
	if binary.BigEndian.Uint32(head[:]) != nbdproto.MagicSimpleReply || slot >= maxInFlight {
		return fmt.Errorf("not a reply: %x", head)
	}
	r := c.slots[slot]
	if errno := binary.BigEndian.Uint32(head[4:]); errno != 0 {
		return fmt.Errorf("request of %d bytes at %d: %w", r.n, r.off, syscall.Errno(errno))
	}
	if r.read {
		p, err := in.Peek(r.n)
		if err != nil {
			return err
		}
		if got := binary.BigEndian.Uint64(p); got != uint64(r.off/BlockSize)+1 {
			return fmt.Errorf("%w: block %d holds %d", ErrData, r.off/BlockSize, int64(got)-1)
		}
		in.Discard(r.n)
	}
	if r.timed {
		took := time.Since(r.start)
		c.mu.Lock()
		c.hist.Add(took)
		c.mu.Unlock()
	}
	c.free <- uint32(slot)
	return nil
}

// settle waits until nothing is in flight.
func (c *Conn) settle(ctx context.Context) error {
	var slots []uint32
	defer func() {
		for _, s := range slots {
			c.free <- s
		}
	}()
	for len(slots)+len(c.held) < maxInFlight {
		select {
		case s := <-c.free:
			slots = append(slots, s)
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done:
			return c.failed()
		}
	}
	return c.failed()
}

// takeHistogram returns what was timed since it was last asked.
func (c *Conn) takeHistogram() Histogram {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hist
	c.hist = Histogram{}
	return h
}
