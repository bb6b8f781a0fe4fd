package nbd

import (
	"sync"
	"sync/atomic"
	"time"
)

// job is work that may wait: one request, a group that one flush completes, or a batch of writes.
type job struct {
	req   request
	start time.Time
	buf   *payload // its data, or nil
	size  int64    // of buf, as it counts against limits

	// group holds the requests that a flush completes: FLUSH, and writes with FUA.
	group []request

	// writes is a batch of writes with the receive buffer that their data lie in.
	writes *writeBatch
	stage  *stage
	spare  *writeBatch // of an earlier use, empty

	reply []byte   // where short replies are built
	segs  [][]byte // where the parts of a reply are listed

	// Arguments of WriteBatch for a single write.
	offs  [1]int64
	datas [1][]byte
	errs  [1]error
}

// jobs is what a connection has in flight beyond its current batch, and the workers for it.
type jobs struct {
	maxInFlight int
	maxBytes    int64
	maxWorkers  int
	work        func() // runs one worker; bound once, so that starting one allocates nothing

	mu      sync.Mutex
	ended   sync.Cond // a job ended
	count   int       // jobs whose replies are not yet written
	bytes   int64     // their payload memory
	queue   []*job    // waiting for a worker, from head on
	head    int
	workers int
	free    []*job
	wg      sync.WaitGroup // workers

	aborted atomic.Bool // jobs that have not begun are refused
}

func (q *jobs) init(cfg *Config, work func()) {
	q.maxInFlight, q.maxBytes, q.maxWorkers = cfg.MaxInFlight, cfg.MaxInFlightBytes, cfg.Workers
	q.work = work
	q.ended.L = &q.mu
}

// full says whether a job of so many bytes would have to wait for others to end.
func (q *jobs) full(size int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.fullLocked(size)
}

func (q *jobs) fullLocked(size int64) bool {
	return q.count >= q.maxInFlight || q.count > 0 && q.bytes+size > q.maxBytes
}

// waitRoom waits until a job of so many bytes may begin. Only the reader adds jobs.
func (q *jobs) waitRoom(size int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.fullLocked(size) {
		q.ended.Wait()
	}
}

// get returns an unused job.
func (q *jobs) get() *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.free); n > 0 {
		j := q.free[n-1]
		q.free = q.free[:n-1]
		return j
	}
	return new(job)
}

// put hands a job to the workers, and starts another one if there may be more.
func (q *jobs) put(j *job) {
	q.mu.Lock()
	q.count++
	q.bytes += j.size
	q.queue = append(q.queue, j)
	start := q.workers < q.maxWorkers
	if start {
		q.workers++
		q.wg.Add(1)
	}
	q.mu.Unlock()
	if start {
		go q.work()
	}
}

// next returns the next job for a worker, or nil: then the worker must end.
func (q *jobs) next() *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head == len(q.queue) {
		q.queue, q.head = q.queue[:0], 0
		q.workers--
		return nil
	}
	j := q.queue[q.head]
	q.queue[q.head] = nil
	q.head++
	if q.head >= 64 && 2*q.head >= len(q.queue) {
		n := copy(q.queue, q.queue[q.head:])
		clear(q.queue[n:])
		q.queue, q.head = q.queue[:n], 0
	}
	return j
}

// end ends jobs whose replies were written or given up. Their buffers were given back already.
func (q *jobs) end(list []*job) {
	q.mu.Lock()
	for _, j := range list {
		q.count--
		q.bytes -= j.size
		j.recycle()
		q.free = append(q.free, j)
	}
	q.mu.Unlock()
	q.ended.Signal()
}

// recycle forgets everything but small buffers that the next use can take over.
func (j *job) recycle() {
	reply, group, spare := j.reply[:0], j.group[:0], j.spare
	if cap(reply) > maxErrorReply*2 {
		reply = nil
	}
	if cap(group) > 64 {
		group = nil
	}
	clear(group[:cap(group)])
	if j.writes != nil {
		spare = j.writes
		spare.reset()
	}
	clear(j.segs)
	*j = job{reply: reply, segs: j.segs[:0], group: group, spare: spare}
}

// wait returns when every worker has ended. The reader calls it, after its last put.
func (q *jobs) wait() { q.wg.Wait() }

func (q *jobs) inFlight() (n int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count, q.bytes
}
