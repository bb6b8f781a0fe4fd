package nbd

import (
	"time"

	"lsad/internal/nbdproto"
)

// maxCacheBytes bounds what one CACHE request reads, in bytes. It is a hint, and needs not be taken whole.
const maxCacheBytes = 64 << 20

// cacheStep is the size of the reads that CACHE makes, in bytes.
const cacheStep = 256 << 10

// worker runs jobs until none waits.
func (c *conn) worker() {
	defer c.jobs.wg.Done()
	for j := c.jobs.next(); j != nil; j = c.jobs.next() {
		c.send.post(j, c.runJob(j))
	}
}

// runJob does the work and returns the reply.
func (c *conn) runJob(j *job) [][]byte {
	switch {
	case j.writes != nil:
		return j.whole(c.runBatch(j))
	case len(j.group) > 0:
		return j.whole(c.runGroup(j))
	}
	reply, err := c.execute(j)
	if err != nil {
		j.reply = c.sess.appendError(j.reply[:0], &j.req, err)
		reply = j.whole(j.reply)
	}
	c.record(j, &j.req, err)
	return reply
}

func (c *conn) execute(j *job) (reply [][]byte, err error) {
	if c.jobs.aborted.Load() {
		return nil, errShuttingDown
	}
	r := &j.req
	switch r.cmd {
	case nbdproto.CmdRead:
		return c.readJob(j)
	case nbdproto.CmdBlockStatus:
		p, err := c.statusJob(j)
		return j.whole(p), err
	case nbdproto.CmdWrite:
		j.offs[0], j.datas[0], j.errs[0] = r.off, j.buf.b[:r.n], nil
		c.export.WriteBatch(j.offs[:], j.datas[:], j.errs[:])
		err = j.errs[0]
	case nbdproto.CmdTrim:
		err = c.export.Trim(r.off, r.n)
	case nbdproto.CmdWriteZeroes:
		err = c.export.WriteZeroes(r.off, r.n, r.has(nbdproto.CmdFlagNoHole))
	case nbdproto.CmdCache:
		err = c.cache(j)
	}
	if err == nil && r.has(nbdproto.CmdFlagFUA) && r.cmd != nbdproto.CmdCache {
		err = c.export.Flush()
	}
	if err != nil {
		return nil, err
	}
	return j.whole(c.success(j, r)), nil
}

// whole is a reply in one piece.
func (j *job) whole(reply []byte) [][]byte {
	j.segs = append(j.segs[:0], reply)
	return j.segs
}

// success appends the reply of a successful request to the job's.
func (c *conn) success(j *job, r *request) []byte {
	var b [nbdproto.ExtendedReplySize]byte
	j.reply = append(j.reply, b[:c.sess.putSuccess(b[:], r)]...)
	return j.reply
}

// runGroup completes requests by one flush.
func (c *conn) runGroup(j *job) []byte {
	var err error
	if c.jobs.aborted.Load() {
		err = errShuttingDown
	} else {
		err = c.export.Flush()
	}
	for i := range j.group {
		r := &j.group[i]
		if err != nil {
			j.reply = c.sess.appendError(j.reply, r, err)
		} else {
			c.success(j, r)
		}
		c.record(j, r, err)
	}
	return j.reply
}

// cache reads a range for the sake of the caches below.
func (c *conn) cache(j *job) error {
	end := j.req.off + min(j.req.n, maxCacheBytes)
	for off := j.req.off; off < end; {
		p := j.buf.b[:min(end-off, int64(len(j.buf.b)))]
		if err := c.export.ReadAt(p, off); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

// record tells the metrics of a request that a worker finished.
func (c *conn) record(j *job, r *request, err error) {
	if c.stats.rec == nil {
		return
	}
	op, ok := opOf(r.cmd)
	if !ok {
		return
	}
	bytes, errors := r.n, 0
	if err != nil {
		bytes, errors = 0, 1
	}
	c.stats.rec.Record(op, 1, bytes, errors, time.Since(j.start))
}
