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
