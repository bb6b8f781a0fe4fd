package ublk

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"lsad/internal/uring"
)

// loop serves until the driver has taken every tag back, or until it is to leave.
func (q *queue) loop() error {
	for q.live > 0 {
		if err := q.ring.Submit(1); err != nil {
			return err
		}
		if q.leaving.Load() {
			return nil
		}
		if err := q.round(); err != nil {
			return err
		}
	}
	return nil
}

// round handles everything that has come.
func (q *queue) round() error {
	q.now = time.Now()
	for c, ok := q.ring.Next(); ok; c, ok = q.ring.Next() {
		var err error
		switch {
		case c.UserData == wakeData:
			err = q.listen()
		case c.Res == 0:
			err = q.handle(uint16(c.UserData))
		case c.Res == -int32(unix.ENODEV):
			q.live--
		default:
			err = fmt.Errorf("tag %d: %w", c.UserData, unix.Errno(-c.Res))
		}
		if err != nil {
			return err
		}
	}
	if err := q.collect(); err != nil {
		return err
	}
	if err := q.runWrites(); err != nil {
		return err
	}
	if len(q.flushes) > 0 {
		j := q.newJob()
		j.flush = append(j.flush, q.flushes...)
		q.flushes = q.flushes[:0]
		q.workers.put(j)
	}
	return nil
}

// handle serves a request, gathers it, or makes a job of it.
func (q *queue) handle(tag uint16) error {
	d := load(q.descs, int(tag))
	if op := d.op(); (op == opRead || op == opWrite) && d.bytes() > int64(q.dev.info.maxRequest) {
		return q.commit(tag, -int32(unix.EINVAL))
	}
	switch d.op() {
	case opRead:
		p := q.buffer(tag)[:d.bytes()]
		if done, err := q.dev.export.TryReadAt(p, d.offset()); done || err != nil {
			q.count(OpRead, d.bytes(), err, q.now)
			return q.commit(tag, resultOf(len(p), err))
		}
	case opWrite:
		q.writes.add(tag, d.flags&flagFUA != 0, d.offset(), q.buffer(tag)[:d.bytes()])
		return nil
	case opFlush:
		q.flushes = append(q.flushes, tag)
		return nil
	}
	j := q.newJob()
	j.single, j.tag, j.req = true, tag, d
	q.workers.put(j)
	return nil
}

// collect hands over what workers have done.
func (q *queue) collect() error {
	jobs := q.results.take(q.taken)
	q.taken = jobs
	for i, j := range jobs {
		for _, r := range j.results {
			if err := q.commit(r.tag, r.res); err != nil {
				return err
			}
		}
		q.recycle(j)
		jobs[i] = nil
	}
	return nil
}

// last hands over what was done after the loop ended.
func (q *queue) last() error {
	if q.live == 0 {
		return nil
	}
	return errors.Join(q.collect(), q.ring.Submit(0))
}

// commit says what a request ended with, and that its tag can have another.
func (q *queue) commit(tag uint16, res int32) error { return q.submit(cmdCommitAndFetch, tag, res) }

func (q *queue) submit(op uint32, tag uint16, res int32) error {
	sqe, err := q.ring.Prepare()
	if err != nil {
		return err
	}
	sqe.Op, sqe.FD, sqe.Off, sqe.UserData = uring.OpCmd, int32(q.dev.char), uint64(op), uint64(tag)
	putIOCommand(&sqe.Cmd, q.id, tag, res, uring.Address(&q.buffer(tag)[0]))
	return nil
}

// listen has the ring complete something when the eventfd is written to.
func (q *queue) listen() error {
	sqe, err := q.ring.Prepare()
	if err != nil {
		return err
	}
	at := q.depth * q.dev.info.maxRequest
	sqe.Op, sqe.FD, sqe.UserData = uring.OpRead, int32(q.event), wakeData
	sqe.Addr, sqe.Len = uring.Address(&q.buffers[at]), 8
	return nil
}

// wake makes the loop look at results and at leaving.
func (q *queue) wake() {
	one := [8]byte{1}
	if _, err := unix.Write(q.event, one[:]); err != nil {
		q.dev.log.Error("wake a ublk queue", "device", q.dev.Path(), "error", err) // it cannot be: the counter never fills
	}
}

// leave makes the queue end, if it has not ended by itself.
func (q *queue) leave() {
	q.leaving.Store(true)
	q.ended.Lock()
	defer q.ended.Unlock()
	if !q.ended.yes {
		q.wake()
	}
}
