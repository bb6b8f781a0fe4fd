package nbdclient

import (
	"context"
	"crypto/tls"
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
