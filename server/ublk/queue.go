package ublk

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lsad/internal/uring"
)

// wakeData marks the completion that says that workers have results; other completions carry a tag.
const wakeData = 1 << 32

// queue is one of a device's queues. What has no other owner belongs to the goroutine of serve.
type queue struct {
	dev   *Device
	id    uint16
	depth int

	ring    *uring.Ring
	descs   []byte // what each tag asks for; the driver's memory, mapped
	buffers []byte // one of maxRequest bytes for each tag, then one for the eventfd
	event   int    // eventfd

	live    int // tags that the driver has not taken back
	now     time.Time
	writes  *batch   // that came in this round
	flushes []uint16 // and what a flush completes
	spare   []*batch
	free    []*job
	taken   []*job // empty, for results.take

	slowWrites atomic.Bool
	leaving    atomic.Bool // serve must end, and leave what is not begun to the next server
	ended      struct {
		sync.Mutex
		yes bool // the eventfd is closed, or will be at once
	}
	workers workers
	results results
}

func (d desc) op() uint32    { return d.flags & 0xff }
func (d desc) offset() int64 { return int64(d.start) << sectorShift }
func (d desc) bytes() int64  { return int64(d.sectors) << sectorShift }

func newQueue(d *Device, id int) *queue {
	q := &queue{dev: d, id: uint16(id), depth: d.info.Depth, event: -1, writes: new(batch)}
	q.workers.work = q.run
	q.results.wake = q.wake
	return q
}

// serve runs the queue in a thread of its own, which ends with it: to the driver it is the queue. ready gets an
// error, or nil once requests can come.
//
// The ring is closed only when the thread is gone. While there is a thread the driver hands it requests, also after the
// ring was closed; and of one that it hands over after it took the ring's end for the queue's it never hears again. Linux
// 6.12 then waits for that request before it lets anybody take the device over, or remove it.
func (q *queue) serve(ready chan<- error) error {
	err := onThread(func() error { return q.inThread(ready) })
	return errors.Join(err, q.close())
}

func (q *queue) inThread(ready chan<- error) error {
	err := q.open()
	ready <- err
	if err != nil {
		return err
	}
	err = q.loop()
	q.workers.wg.Wait()
	return errors.Join(err, q.last())
}

// open maps the queue's memory and offers the driver every tag.
func (q *queue) open() error {
	if err := q.allocate(); err != nil {
		return err
	}
	if err := q.mapRequests(); err != nil {
		return err
	}
	if err := q.listen(); err != nil {
		return err
	}
	if err := q.fetch(); err != nil {
		return err
	}
	q.live = q.depth
	return nil
}

// allocate makes what a queue has of its own.
func (q *queue) allocate() (err error) {
	if q.ring, err = uring.New(uint32(q.depth+1), uring.Options{SingleIssuer: true}); err != nil {
		return err
	}
	if q.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	size := q.depth*q.dev.info.maxRequest + unix.Getpagesize()
	q.buffers, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("memory for requests: %w", err)
	}
	return nil
}

// mapRequests maps where the driver says what each tag asks for.
func (q *queue) mapRequests() (err error) {
	page := unix.Getpagesize()
	roundUp := func(n int) int { return (n + page - 1) / page * page }
	q.descs, err = unix.Mmap(q.dev.char, int64(q.id)*int64(roundUp(MaxDepth*descSize)), roundUp(q.depth*descSize), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("map requests: %w", err)
	}
	return nil
}

// fetch offers the driver every tag, with one system call: a queue with some of its tags is one that the driver
// never gets rid of.
func (q *queue) fetch() error {
	for tag := range q.depth {
		if err := q.submit(cmdFetch, uint16(tag), 0); err != nil {
			return err
		}
	}
	if err := q.ring.Submit(0); err != nil {
		return err
	}
	if c, ok := q.ring.Next(); ok { // nothing can have come yet but a refusal
		return fmt.Errorf("fetch a request: %w", unix.Errno(-c.Res))
	}
	return nil
}

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

// buffer is the memory of a tag.
func (q *queue) buffer(tag uint16) []byte {
	n := q.dev.info.maxRequest
	return q.buffers[int(tag)*n : (int(tag)+1)*n : (int(tag)+1)*n]
}

func (q *queue) newJob() *job {
	n := len(q.free)
	if n == 0 {
		return &job{q: q, start: q.now}
	}
	j := q.free[n-1]
	q.free = q.free[:n-1]
	j.q, j.start = q, q.now
	return j
}

// recycle keeps a job, and the slices it has, for another use.
func (q *queue) recycle(j *job) {
	if j.writes != nil {
		j.writes.reset()
		q.spare = append(q.spare, j.writes)
	}
	*j = job{results: j.results[:0], flush: j.flush[:0]}
	q.free = append(q.free, j)
}

func (q *queue) spareBatch() *batch {
	n := len(q.spare)
	if n == 0 {
		return new(batch)
	}
	b := q.spare[n-1]
	q.spare = q.spare[:n-1]
	return b
}

func (q *queue) close() error {
	q.ended.Lock()
	q.ended.yes = true
	q.ended.Unlock()
	var errs []error
	if q.ring != nil {
		errs = append(errs, q.ring.Close())
	}
	for _, m := range [][]byte{q.descs, q.buffers} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	if q.event >= 0 {
		errs = append(errs, unix.Close(q.event))
	}
	return errors.Join(errs...)
}
