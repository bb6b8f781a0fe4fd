package nbd

import (
	"errors"
	"fmt"

	"lsad/internal/nbdproto"
)

const (
	// inlineMax is the longest payload that passes through the staging buffers, in bytes.
	inlineMax = 64 << 10
	// maxUnwantedPayload is the longest payload that is read only to be refused, in bytes.
	maxUnwantedPayload = 2 * MaxPayload
)

var errBadMagic = errors.New("wrong request magic: the client is out of step")

// readRequests serves batches of requests until the client leaves (nil or io.EOF) or something fails.
func (c *conn) readRequests() error {
	for {
		if err := c.recv.fill(); err != nil {
			return err
		}
		done, err := c.handleBatch()
		if done || err != nil {
			c.flush() // what was done can be told, if the client still listens
			return err
		}
	}
}

// handleBatch handles all requests that are in the receive buffer. done says that the client has said goodbye.
func (c *conn) handleBatch() (done bool, err error) {
	c.size = c.export.Size()
	c.stats.begin()
	for {
		more, disc, err := c.nextRequest()
		if err != nil {
			c.endBatch()
			return false, err
		}
		if !more {
			return disc, c.endBatch()
		}
	}
}

// nextRequest handles one request, if there is a whole one, or the whole header of one with a long payload.
func (c *conn) nextRequest() (more, disc bool, err error) {
	b, head := c.recv.buffered(), nbdproto.RequestSize
	if c.sess.extended {
		head = nbdproto.ExtendedRequestSize
	}
	if len(b) < head {
		return false, false, nil
	}
	r := &c.req
	if !r.parse(b, c.sess.extended) {
		return false, false, errBadMagic
	}
	if r.cmd == nbdproto.CmdDisc {
		return false, true, nil
	}
	if r.payload <= inlineMax && int64(len(b)-head) < r.payload {
		return false, false, nil
	}
	c.recv.consume(head)
	c.recv.progress = true
	if err := c.handle(r); err != nil {
		return false, false, err
	}
	return true, false, nil
}

// handle serves a request, gathers it, or makes a job of it.
func (c *conn) handle(r *request) error {
	if err := c.sess.check(r, c.size, c.readOnly); err != nil {
		return c.refuse(r, err)
	}
	switch r.cmd {
	case nbdproto.CmdRead:
		return c.read(r)
	case nbdproto.CmdWrite:
		return c.write(r)
	case nbdproto.CmdFlush:
		c.group = append(c.group, *r)
		return nil
	case nbdproto.CmdBlockStatus:
		return c.blockStatus(r)
	}
	if r.n == 0 {
		return c.succeed(r)
	}
	if r.cmd == nbdproto.CmdCache {
		return c.submit(r, cacheStep)
	}
	return c.submit(r, 0)
}

// endBatch does what the batch gathered, and sends the replies.
func (c *conn) endBatch() error {
	if err := c.settle(); err != nil {
		return err
	}
	c.stats.end()
	return nil
}

// settle does everything that was put off, so that the reader may wait: writes, then the flush that some of
// them need, then the replies. Afterwards nothing refers to the receive buffer.
func (c *conn) settle() error {
	if err := c.runWrites(); err != nil {
		return err
	}
	if err := c.submitGroup(); err != nil {
		return err
	}
	return c.flush()
}

// flush sends the replies that the reader has.
func (c *conn) flush() error { return c.send.flush(&c.out) }

// roomFor returns n bytes of the reply buffer, after sending what is in it if they do not fit.
func (c *conn) roomFor(n int) ([]byte, error) {
	if c.out.n+n > stageSize {
		if err := c.flush(); err != nil {
			return nil, err
		}
	}
	return c.out.room(n), nil
}

// succeed replies that a request was carried out.
func (c *conn) succeed(r *request) error {
	p, err := c.roomFor(nbdproto.ExtendedReplySize)
	if err != nil {
		return err
	}
	c.out.grow(c.sess.putSuccess(p, r))
	c.stats.add(r.cmd, r.n, false)
	return nil
}

// failRequest replies that a request failed.
func (c *conn) failRequest(r *request, cause error) error {
	p, err := c.roomFor(maxErrorReply)
	if err != nil {
		return err
	}
	c.out.grow(len(c.sess.appendError(p[:0], r, cause)))
	c.stats.add(r.cmd, r.n, true)
	return nil
}

// refuse passes over the payload of a request and replies that it failed. A payload that nobody in his right
// mind sends ends the connection.
func (c *conn) refuse(r *request, cause *requestError) error {
	if r.payload > maxUnwantedPayload || c.sess.extended && r.payload > MaxPayload {
		return fmt.Errorf("a payload of %d bytes: %w", r.payload, cause)
	}
	if err := c.discard(r.payload); err != nil {
		return err
	}
	return c.failRequest(r, cause)
}

// discard passes over n bytes of what the client sends.
func (c *conn) discard(n int64) error {
	have := int64(len(c.recv.buffered()))
	if n > have {
		if err := c.settle(); err != nil {
			return err
		}
	}
	for n > have {
		c.recv.consume(int(have))
		n -= have
		if err := c.recv.fill(); err != nil {
			return err
		}
		have = int64(len(c.recv.buffered()))
	}
	c.recv.consume(int(n))
	return nil
}
