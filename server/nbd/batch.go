package nbd

import (
	"time"

	"lsad/internal/nbdproto"
)

// writeBatch gathers the writes of a batch. Their data lie in the receive buffer.
type writeBatch struct {
	reqs  []request
	offs  []int64
	datas [][]byte
	errs  []error
}

func (w *writeBatch) add(r *request, data []byte) {
	w.reqs = append(w.reqs, *r)
	w.offs = append(w.offs, r.off)
	w.datas = append(w.datas, data)
	w.errs = append(w.errs, nil)
}

func (w *writeBatch) reset() {
	clear(w.datas)
	clear(w.errs)
	w.reqs, w.offs, w.datas, w.errs = w.reqs[:0], w.offs[:0], w.datas[:0], w.errs[:0]
}

// write gathers a write for the batch, or makes a job of a long one.
func (c *conn) write(r *request) error {
	switch {
	case r.n == 0:
		return c.succeed(r)
	case r.n > inlineMax:
		return c.writeLong(r)
	}
	c.writes.add(r, c.recv.buffered()[:r.n])
	c.recv.consume(int(r.n))
	return nil
}

// slowWrite is how long a batch may take before the next one is handed to the workers. A batch that is quick is
// quickest in the reader: on few cores a change of goroutine costs more than it wins. But when the devices are
// slow, or hold writers back, requests behind the writes must not wait for them.
const slowWrite = time.Millisecond

// runWrites carries out the writes gathered, or has a worker do it.
func (c *conn) runWrites() error {
	w := c.writes
	if len(w.reqs) == 0 {
		return nil
	}
	if c.slowWrites.Load() && c.submitWrites() {
		return nil
	}
	// Writing may take a while, and replies that are ready must not wait for it.
	if err := c.flush(); err != nil {
		return err
	}
	defer w.reset()
	c.writeBatch(w)
	for i := range w.reqs {
		if err := c.wrote(&w.reqs[i], w.errs[i]); err != nil {
			return err
		}
	}
	return nil
}

// writeBatch writes, and takes note of how long that took.
func (c *conn) writeBatch(w *writeBatch) {
	start := time.Now()
	c.export.WriteBatch(w.offs, w.datas, w.errs)
	c.slowWrites.Store(time.Since(start) > slowWrite)
}

// submitWrites hands the writes gathered to the workers, together with the receive buffer that holds their data.
// It does not where that would take more memory than there is, or make the reader wait.
func (c *conn) submitWrites() bool {
	if c.jobs.full(stageSize) || !c.srv.buffers.tryAcquire(stageSize) {
		return false
	}
	j := c.jobs.get()
	j.start, j.size = c.stats.start, stageSize
	j.stage = c.recv.handOver()
	j.writes, c.writes, j.spare = c.writes, j.spare, nil
	if c.writes == nil {
		c.writes = new(writeBatch)
	}
	c.jobs.put(j)
	return true
}

// runBatch carries out a job of many writes. Those that need a flush are answered after the others.
func (c *conn) runBatch(j *job) []byte {
	w := j.writes
	if c.jobs.aborted.Load() {
		for i := range w.errs {
			w.errs[i] = errShuttingDown
		}
	} else {
		c.writeBatch(w)
	}
	for i := range w.reqs {
		r := &w.reqs[i]
		switch err := w.errs[i]; {
		case err == nil && r.has(nbdproto.CmdFlagFUA):
			j.group = append(j.group, *r)
			continue
		case err != nil:
			j.reply = c.sess.appendError(j.reply, r, err)
			c.record(j, r, err)
		default:
			c.success(j, r)
			c.record(j, r, nil)
		}
	}
	if len(j.group) == 0 {
		return j.reply
	}
	if len(j.reply) > 0 {
		c.send.postPart(j, j.reply)
		j.reply = j.reply[:0]
	}
	return c.runGroup(j)
}

// wrote replies to a write that was carried out, or leaves that to the flush that it needs.
func (c *conn) wrote(r *request, cause error) error {
	switch {
	case cause != nil:
		return c.failRequest(r, cause)
	case r.has(nbdproto.CmdFlagFUA):
		c.group = append(c.group, *r)
		return nil
	}
	return c.succeed(r)
}

// writeLong receives a long payload into a buffer of its own and hands it to the workers.
func (c *conn) writeLong(r *request) error {
	j, err := c.newJob(r, int(r.n))
	if err != nil {
		return err
	}
	if err := c.settle(); err != nil {
		c.dropJob(j)
		return err
	}
	if j == nil {
		return c.writeInPieces(r)
	}
	if err := c.recv.readFull(j.buf.b[:r.n]); err != nil {
		c.dropJob(j)
		return err
	}
	c.jobs.put(j)
	return nil
}

// writeInPieces writes a long payload as it comes in, for want of memory.
func (c *conn) writeInPieces(r *request) error {
	req := *r
	var cause error
	for done := int64(0); done < req.n; {
		data := c.recv.buffered()
		if len(data) == 0 {
			if err := c.recv.fill(); err != nil {
				return err
			}
			continue
		}
		data = data[:min(int64(len(data)), req.n-done)]
		if cause == nil {
			offs, datas, errs := []int64{req.off + done}, [][]byte{data}, []error{nil}
			c.export.WriteBatch(offs, datas, errs)
			cause = errs[0]
		}
		c.recv.consume(len(data))
		done += int64(len(data))
	}
	return c.wrote(&req, cause)
}
