package nbdclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"lsad/internal/nbdproto"
)

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
