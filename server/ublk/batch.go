package ublk

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// batch is writes that came in together.
type batch struct {
	tags  []uint16
	fua   []bool
	offs  []int64
	datas [][]byte
	errs  []error
}

func (b *batch) add(tag uint16, fua bool, off int64, data []byte) {
	b.tags = append(b.tags, tag)
	b.fua = append(b.fua, fua)
	b.offs = append(b.offs, off)
	b.datas = append(b.datas, data)
	b.errs = append(b.errs, nil)
}

func (b *batch) reset() {
	clear(b.errs)
	b.tags, b.fua, b.offs, b.datas, b.errs = b.tags[:0], b.fua[:0], b.offs[:0], b.datas[:0], b.errs[:0]
}

// slowWrite is how long a batch may take before the next one is handed to a worker. A quick one is quickest in the
// queue's own goroutine; when devices are slow, or hold writers back, requests behind it must not wait.
const slowWrite = time.Millisecond

// runWrites carries out the writes gathered, or has a worker do it.
func (q *queue) runWrites() error {
	b := q.writes
	if len(b.tags) == 0 {
		return nil
	}
	if q.slowWrites.Load() {
		j := q.newJob()
		j.writes = b
		q.writes = q.spareBatch()
		q.workers.put(j)
		return nil
	}
	// What is done already must not wait for the writes.
	if err := q.ring.Submit(0); err != nil {
		return err
	}
	q.write(b)
	for i, tag := range b.tags {
		if b.errs[i] == nil && b.fua[i] {
			q.flushes = append(q.flushes, tag)
			continue
		}
		if err := q.commit(tag, resultOf(len(b.datas[i]), b.errs[i])); err != nil {
			return err
		}
	}
	q.record(OpWrite, b, q.now)
	b.reset()
	return nil
}

// write writes, and takes note of how long that took.
func (q *queue) write(b *batch) {
	begin := time.Now()
	q.dev.export.WriteBatch(b.offs, b.datas, b.errs)
	q.slowWrites.Store(time.Since(begin) > slowWrite)
}

// execute carries out a job.
func (j *job) execute() {
	switch {
	case j.writes != nil:
		j.runBatch()
	case j.single:
		res := j.request()
		j.results = append(j.results, result{j.tag, res})
	}
	j.runFlushes()
}

// runBatch writes. Those writes that need a flush wait for it.
func (j *job) runBatch() {
	b := j.writes
	j.q.write(b)
	for i, tag := range b.tags {
		if b.errs[i] == nil && b.fua[i] {
			j.flush = append(j.flush, tag)
			continue
		}
		j.results = append(j.results, result{tag, resultOf(len(b.datas[i]), b.errs[i])})
	}
	j.q.record(OpWrite, b, j.start)
}

// runFlushes completes requests by one flush.
func (j *job) runFlushes() {
	if len(j.flush) == 0 {
		return
	}
	err := j.q.dev.export.Flush()
	for _, tag := range j.flush {
		req := load(j.q.descs, int(tag))
		res := resultOf(int(req.bytes()), err)
		if req.op() == opFlush {
			j.q.count(OpFlush, 0, err, j.start)
			res = resultOf(0, err)
		}
		j.results = append(j.results, result{tag, res})
	}
}

// request carries out a request that may take its time.
func (j *job) request() int32 {
	x, off, n := j.q.dev.export, j.req.offset(), j.req.bytes()
	var op Op
	var err error
	switch j.req.op() {
	case opRead:
		op, err = OpRead, x.ReadAt(j.q.buffer(j.tag)[:n], off)
	case opDiscard:
		op, err = OpTrim, x.Trim(off, n)
	case opWriteZeroes:
		op, err = OpWriteZeroes, x.WriteZeroes(off, n, j.req.flags&flagNoUnmap != 0)
	default:
		return -int32(unix.EOPNOTSUPP)
	}
	if err == nil && j.req.op() != opRead && j.req.flags&flagFUA != 0 {
		err = x.Flush()
	}
	j.q.count(op, n, err, j.start)
	if j.req.op() == opRead {
		return resultOf(int(n), err)
	}
	return resultOf(0, err)
}

// resultOf is what the driver is told of a request: bytes, or a negative errno.
func resultOf(n int, err error) int32 {
	if err == nil {
		return int32(n)
	}
	var errno unix.Errno
	if errors.As(err, &errno) && errno != 0 {
		return -int32(errno)
	}
	return -int32(unix.EIO)
}

// record tells the metrics of a batch of writes.
func (q *queue) record(op Op, b *batch, start time.Time) {
	if q.dev.recorder == nil {
		return
	}
	bytes, failed := int64(0), 0
	for i, err := range b.errs {
		if err != nil {
			failed++
			continue
		}
		bytes += int64(len(b.datas[i]))
	}
	q.dev.recorder.Record(op, len(b.tags), bytes, failed, time.Since(start))
}

// count tells the metrics of one request.
func (q *queue) count(op Op, bytes int64, err error, start time.Time) {
	if q.dev.recorder == nil {
		return
	}
	failed := 0
	if err != nil {
		bytes, failed = 0, 1
	}
	q.dev.recorder.Record(op, 1, bytes, failed, time.Since(start))
}
