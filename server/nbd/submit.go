package nbd

import "lsad/internal/nbdproto"

// newJob returns a job for r with a buffer for n bytes, 0 for none, after waiting until the connection may have
// one more in flight. It is nil if there is no memory for the buffer.
func (c *conn) newJob(r *request, n int) (*job, error) {
	class, size := 0, int64(0)
	if n > 0 {
		class, size = payloadClass(n)
	}
	if c.jobs.full(size) {
		if err := c.settle(); err != nil {
			return nil, err
		}
		c.jobs.waitRoom(size)
	}
	if size > 0 && !c.srv.buffers.tryAcquire(size) {
		return nil, nil
	}
	j := c.jobs.get()
	j.req, j.start, j.size = *r, c.stats.start, size
	if size > 0 {
		j.buf = getPayload(class)
	}
	return j, nil
}

// dropJob gives up a job that was not handed to the workers; it may be nil.
func (c *conn) dropJob(j *job) {
	if j == nil {
		return
	}
	if j.buf != nil {
		putPayload(j.buf)
		c.srv.buffers.release(j.size)
	}
}

// submit hands a request to the workers, with a buffer for n bytes.
func (c *conn) submit(r *request, n int) error {
	j, err := c.newJob(r, n)
	if err != nil {
		return err
	}
	if j == nil {
		return c.inPieces(r)
	}
	c.jobs.put(j)
	return nil
}

// submitGroup hands the requests that wait for a flush to the workers. One flush serves them all.
func (c *conn) submitGroup() error {
	if len(c.group) == 0 {
		return nil
	}
	if c.jobs.full(0) {
		if err := c.flush(); err != nil {
			return err
		}
		c.jobs.waitRoom(0)
	}
	j := c.jobs.get()
	j.start = c.stats.start
	j.group = append(j.group, c.group...)
	clear(c.group)
	c.group = c.group[:0]
	c.jobs.put(j)
	return nil
}

// inPieces serves a request for whose data there is no memory, in the reader and with the buffers that it has.
func (c *conn) inPieces(r *request) error {
	if r.cmd == nbdproto.CmdRead {
		return c.readInPieces(r)
	}
	// A hint to the cache can be ignored, and the status of a range may be told in part.
	if r.cmd == nbdproto.CmdBlockStatus {
		return c.statusInPieces(r)
	}
	return c.succeed(r)
}

// readInPieces reads and sends in turn. With simple replies there is no way to report an error half way: it
// ends the connection, as the protocol asks.
func (c *conn) readInPieces(r *request) error {
	req := *r
	if err := c.settle(); err != nil {
		return err
	}
	structured := c.sess.structured || c.sess.extended
	if structured && req.has(nbdproto.CmdFlagDF) && req.n > inlineMax {
		return c.failRequest(&req, errReadTooBig)
	}
	if err := c.send.exclusive(); err != nil {
		return err
	}
	cause, err := c.streamRead(&req, structured)
	c.send.done(err)
	c.stats.add(req.cmd, req.n, cause != nil || err != nil)
	return err
}

// streamRead returns the error that the client was told of, and the one that ends the connection.
func (c *conn) streamRead(r *request, structured bool) (cause, err error) {
	s := getStage()
	defer putStage(s)
	for at := int64(0); at < r.n; {
		n, h, flags := int(min(r.n-at, inlineMax)), 0, uint16(0)
		if at+int64(n) == r.n {
			flags = nbdproto.ReplyFlagDone
		}
		if structured || at == 0 {
			h = c.sess.putDataHeader(s.b[:], r, flags, r.off+at, n)
		}
		if err := c.export.ReadAt(s.b[h:h+n], r.off+at); err != nil {
			if !structured && at > 0 {
				return nil, err
			}
			return err, c.send.writeBytes(c.sess.appendError(s.b[:0], r, err))
		}
		if err := c.send.writeBytes(s.b[:h+n]); err != nil {
			return nil, err
		}
		at += int64(n)
	}
	return nil, nil
}
