package nbdclient

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"lsad/internal/nbdproto"
)

// MaxInFlight bounds the requests of one client that are under way. Further callers wait.
const MaxInFlight = 256

// ClientOptions are settings of a Client.
type ClientOptions struct {
	TLS *tls.Config // instead of what the URI says
	// StallTimeout is how long nothing may come while requests are in flight before the connection counts as lost.
	// Default 10 s.
	StallTimeout time.Duration
}

// Extent is a range of the export of one kind.
type Extent struct {
	Length int64 // bytes, at least 1
	Hole   bool  // not allocated
	Zero   bool  // reads as zeros
}

// Client is one connection to an export. Its methods may be called by many goroutines at once.
type Client struct {
	info  Info
	conn  net.Conn
	stall time.Duration
	free  chan *call // those not in use
	calls [MaxInFlight]call

	received atomic.Int64 // bytes
	inFlight atomic.Int64
	done     chan struct{} // closed when the client has ended
	wg       sync.WaitGroup

	mu      sync.Mutex
	err     error  // why the client has ended
	out     []byte // requests not yet written
	spare   []byte // the other buffer for them
	writing bool   // somebody is
}

// NewClient takes over a negotiated connection.
func NewClient(info Info, o ClientOptions) *Client {
	if o.StallTimeout <= 0 {
		o.StallTimeout = 10 * time.Second
	}
	c := &Client{info: info, conn: info.Conn, stall: o.StallTimeout, free: make(chan *call, MaxInFlight), done: make(chan struct{})}
	for i := range c.calls {
		c.calls[i].slot, c.calls[i].got = uint64(i), c.calls[i].room[:0]
		c.calls[i].done = make(chan struct{}, 1)
		c.free <- &c.calls[i]
	}
	c.wg.Go(c.receive)
	c.wg.Go(c.watch)
	return c
}

// Info is what was negotiated.
func (c *Client) Info() Info { return c.info }

// Done is closed when the client has ended, by Close or because the connection is gone.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection. Requests in flight fail with ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	ended, busy := c.err != nil, c.writing
	c.mu.Unlock()
	if !ended && !busy {
		c.farewell()
	}
	c.fail(ErrClosed)
	c.wg.Wait()
	return nil
}

// Stop has the client end as Close does, and waits for nothing.
func (c *Client) Stop() { c.fail(ErrClosed) }

// farewell tells the server that this is no accident. If that fails it makes no difference.
func (c *Client) farewell() {
	c.conn.SetWriteDeadline(time.Now().Add(time.Second))
	c.conn.Write(c.appendRequest(nil, nbdproto.CmdDisc, ^uint64(0), 0, 0))
}

// fail ends the client. The first reason holds.
func (c *Client) fail(err error) {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
	}
	c.mu.Unlock()
	if first {
		close(c.done)
		c.conn.Close()
	}
}

// ReadAt fills p from off on. Where MinBlock is larger than 1, both must be multiples of it. A context that ends
// while the answer is arriving costs the connection. Errors are *RemoteError, after which the client is as good as
// before, or ErrDisconnected, ErrProtocol, ErrClosed, after which it is not, or the context's.
func (c *Client) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := c.checkRange("read", off, int64(len(p))); err != nil {
		return err
	}
	most := int(min(c.info.MaxBlock, nbdproto.MaxPayload))
	for len(p) > 0 {
		n := min(len(p), most)
		if err := c.do(ctx, nbdproto.CmdRead, p[:n], off, int64(n), nil); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// BlockStatus appends the kinds of ranges from off on to to: at least one, at most n bytes in all, perhaps fewer.
// Without base:allocation it returns ErrNoBlockStatus; otherwise errors are as for ReadAt.
func (c *Client) BlockStatus(ctx context.Context, off, n int64, to []Extent) ([]Extent, error) {
	if !c.info.Allocation {
		return to, ErrNoBlockStatus
	}
	if err := c.checkRange("block status", off, n); err != nil {
		return to, err
	}
	if !c.info.Extended {
		n = min(n, 1<<32-int64(c.info.MinBlock))
	}
	if n == 0 {
		return to, fmt.Errorf("block status of nothing at %d: %w", off, syscall.EINVAL)
	}
	old := len(to)
	if err := c.do(ctx, nbdproto.CmdBlockStatus, nil, off, n, &to); err != nil {
		return to[:old], err
	}
	return to, nil
}

func (c *Client) checkRange(op string, off, n int64) error {
	least := int64(c.info.MinBlock)
	if off < 0 || n < 0 || off > c.info.Size || n > c.info.Size-off || off%least != 0 || n%least != 0 {
		return fmt.Errorf("%s of %d bytes at %d, in an export of %d with blocks of %d: %w", op, n, off, c.info.Size, least, syscall.EINVAL)
	}
	return nil
}

// Completion is told the outcome of a read that Start began, once, on the goroutine that receives replies: what it does
// holds every other reply up, so it must be quick, and must not wait for the client.
type Completion interface {
	// Done has an error as of ReadAt.
	Done(err error)
}

// Start begins a read and does not wait for anything: it returns false, and nothing is begun, if the client has ended,
// too many requests are in flight or the range is not one that a single request can have.
func (c *Client) Start(p []byte, off int64, then Completion) bool {
	n := int64(len(p))
	if n == 0 || n > int64(min(c.info.MaxBlock, nbdproto.MaxPayload)) || c.checkRange("read", off, n) != nil {
		return false
	}
	select {
	case k := <-c.free:
		k.begin(nbdproto.CmdRead, p, off, n)
		k.then = then
		if c.start(k) != nil {
			k.then = nil
			c.free <- k
			return false
		}
		return true
	default:
		return false
	}
}

// do runs one request.
func (c *Client) do(ctx context.Context, cmd uint16, p []byte, off, n int64, extents *[]Extent) error {
	var k *call
	select {
	case k = <-c.free:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return c.reason()
	}
	k.begin(cmd, p, off, n)
	if extents != nil {
		k.extents = *extents
	}
	if err := c.start(k); err != nil {
		c.free <- k
		return err
	}
	select {
	case <-k.done:
	case <-ctx.Done():
		if c.abandon(k) {
			return ctx.Err()
		}
		<-k.done
		if errors.Is(k.err, ErrDisconnected) {
			k.err = ctx.Err()
		}
	}
	err := k.err
	if extents != nil {
		*extents, k.extents = k.extents, nil
	}
	k.p = nil
	c.free <- k
	return err
}

// start registers a call and sends its request.
func (c *Client) start(k *call) error {
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	k.generation++
	k.state = waiting
	c.inFlight.Add(1)
	c.out = c.appendRequest(c.out, k.cmd, k.cookie(), k.off, k.n)
	if c.writing {
		c.mu.Unlock()
		return nil
	}
	c.writing = true
	for len(c.out) > 0 && c.err == nil {
		p := c.out
		c.out, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		_, err := c.conn.Write(p)
		if err != nil {
			c.fail(lost(err)) // the receiver ends every call, this one too
		}
		c.mu.Lock()
		c.spare = p
	}
	c.writing = false
	c.mu.Unlock()
	return nil
}

// appendRequest writes a request header.
func (c *Client) appendRequest(p []byte, cmd uint16, cookie uint64, off, n int64) []byte {
	magic := uint32(nbdproto.MagicRequest)
	if c.info.Extended {
		magic = nbdproto.MagicExtendedRequest
	}
	p = binary.BigEndian.AppendUint32(p, magic)
	p = binary.BigEndian.AppendUint16(p, 0)
	p = binary.BigEndian.AppendUint16(p, cmd)
	p = binary.BigEndian.AppendUint64(p, cookie)
	p = binary.BigEndian.AppendUint64(p, uint64(off))
	if c.info.Extended {
		return binary.BigEndian.AppendUint64(p, uint64(n))
	}
	return binary.BigEndian.AppendUint32(p, uint32(n))
}

// abandon gives up a call that its caller no longer waits for. It returns false if the call's outcome will come: it
// is there already, or its answer is arriving into the caller's memory, for which the connection must end.
func (c *Client) abandon(k *call) bool {
	c.mu.Lock()
	state := k.state
	if state == waiting {
		k.state = abandoned
	}
	c.mu.Unlock()
	if state == filling {
		c.fail(fmt.Errorf("%w: a read was cancelled while it was arriving", ErrDisconnected))
	}
	return state == waiting
}

func (c *Client) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// watch ends the client when requests are in flight and nothing comes. A stall is seen after StallTimeout, and at
// most a quarter of it later.
func (c *Client) watch() {
	every := time.NewTicker(max(c.stall/4, time.Millisecond))
	defer every.Stop()
	since, seen := time.Now(), int64(-1)
	for {
		select {
		case <-c.done:
			return
		case now := <-every.C:
			got := c.received.Load()
			if got != seen || c.inFlight.Load() == 0 {
				since, seen = now, got
				continue
			}
			if now.Sub(since) >= c.stall {
				c.fail(fmt.Errorf("%w: nothing came for %v", ErrDisconnected, c.stall))
				return
			}
		}
	}
}

// ended turns an error of the socket into the reason for the end, where that is known.
func (c *Client) ended(err error) error {
	if errors.Is(err, ErrProtocol) {
		return err
	}
	return lost(err)
}
