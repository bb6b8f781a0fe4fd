package ublk

import (
	"sync"
	"time"
)

// job is work that may wait: one request, a batch of writes, or requests that one flush completes.
type job struct {
	q     *queue
	start time.Time // when its requests came in

	tag    uint16
	req    desc
	single bool
	writes *batch   // or nil
	flush  []uint16 // tags

	results []result
}

// result is what a request ended with: bytes, or a negative errno.
type result struct {
	tag uint16
	res int32
}

// maxWorkers is how many requests of one queue may wait for disks at a time.
const maxWorkers = 32

// workers run jobs. A worker ends when there is nothing left to do.
type workers struct {
	work func() // runs one worker; bound once, so that starting one allocates nothing

	mu      sync.Mutex
	queue   []*job // from head on
	head    int
	running int
	wg      sync.WaitGroup
}

// put hands a job over. Only the queue's own goroutine does.
func (w *workers) put(j *job) {
	w.mu.Lock()
	w.queue = append(w.queue, j)
	start := w.running < maxWorkers
	if start {
		w.running++
		w.wg.Add(1)
	}
	w.mu.Unlock()
	if start {
		go w.work()
	}
}

// next returns the next job, or nil: then the worker must end.
func (w *workers) next() *job {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.head == len(w.queue) {
		w.queue, w.head = w.queue[:0], 0
		w.running--
		return nil
	}
	j := w.queue[w.head]
	w.queue[w.head] = nil
	w.head++
	if w.head >= 64 && 2*w.head >= len(w.queue) {
		n := copy(w.queue, w.queue[w.head:])
		clear(w.queue[n:])
		w.queue, w.head = w.queue[:n], 0
	}
	return j
}

// run carries out jobs until none waits.
func (q *queue) run() {
	defer q.workers.wg.Done()
	for j := q.workers.next(); j != nil; j = q.workers.next() {
		j.execute()
		q.results.post(j)
	}
}

// results are the jobs that were done, on their way back to the queue.
type results struct {
	wake func() // makes the queue look

	mu    sync.Mutex
	jobs  []*job
	woken bool // since it looked last
}

func (r *results) post(j *job) {
	r.mu.Lock()
	r.jobs = append(r.jobs, j)
	wake := !r.woken
	r.woken = true
	r.mu.Unlock()
	if wake {
		r.wake()
	}
}

// take exchanges the jobs that were done for an empty slice.
func (r *results) take(empty []*job) []*job {
	r.mu.Lock()
	defer r.mu.Unlock()
	jobs := r.jobs
	r.jobs, r.woken = empty[:0], false
	return jobs
}
