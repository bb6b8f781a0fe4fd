package nbd

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// byReference is the length from which a reply is written from where it lies, not copied together
	// with others, in bytes.
	byReference = 8 << 10
	// maxSegments bounds the segments of one outgoing batch.
	maxSegments = 512
	// writeChunk bounds what is written before the write deadline is renewed, in bytes.
	writeChunk = 1 << 20
)

// sender writes replies. Whoever has a reply while nobody writes becomes the writer, and goes on until
// nothing is pending; meanwhile others only add to what is pending, and so their replies leave together.
// A client that does not read blocks the writer, then, when no more fits, everyone who has replies for it.
type sender struct {
	nc      net.Conn
	fail    func(error) // tells the connection that it is over
	timeout time.Duration
	release func([]*job)
	total   atomic.Uint64 // bytes sent

	mu      sync.Mutex
	changed sync.Cond // room in pending, or no writer any more
	pending *outBatch
	spare   *outBatch // the one being written, or empty
	writing bool
	err     error

	// Of the writer only.
	bufs  net.Buffers
	armed time.Time // when the write deadline was set
}

func (s *sender) init(nc net.Conn, timeout time.Duration, release func([]*job), fail func(error)) {
	s.nc, s.timeout, s.release, s.fail = nc, timeout, release, fail
	s.changed.L = &s.mu
	s.pending, s.spare = new(outBatch), new(outBatch)
}

// post sends the reply of a job, and ends the job when it is written.
func (s *sender) post(j *job, reply [][]byte) { s.queue(j, reply) }

// postPart sends a first part of the replies of a job, which it copies, so that the rest cannot hold it up.
func (s *sender) postPart(j *job, reply []byte) {
	for len(reply) > 0 {
		n := min(len(reply), byReference-1)
		s.queue(nil, j.whole(reply[:n]))
		reply = reply[n:]
	}
}

func (s *sender) queue(j *job, reply [][]byte) {
	s.mu.Lock()
	for s.writing && s.err == nil && !s.pending.fits(reply) {
		s.changed.Wait()
	}
	if j != nil {
		s.pending.jobs = append(s.pending.jobs, j)
	}
	if s.err == nil {
		for _, p := range reply {
			s.pending.add(p)
		}
	}
	if !s.writing {
		s.writing = true
		s.drain()
	}
	s.mu.Unlock()
}

// flush sends the reader's batch, which it leaves empty.
func (s *sender) flush(b *outBatch) error {
	if b.empty() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing && s.err == nil {
		if s.pending.n+b.n <= stageSize {
			s.pending.copyOf(b)
			b.reset()
			return nil
		}
		s.changed.Wait()
	}
	if s.err != nil {
		b.reset()
		return s.err
	}
	s.writing = true
	s.writeUnlocked(b)
	s.drain()
	return s.err
}

// drain writes until nothing is pending. The caller holds mu and has made itself the writer.
func (s *sender) drain() {
	for len(s.pending.jobs) > 0 || !s.pending.empty() {
		b := s.pending
		s.pending, s.spare = s.spare, b
		s.changed.Broadcast()
		s.writeUnlocked(b)
	}
	s.writing = false
	s.changed.Broadcast()
}

// writeUnlocked writes b without holding mu, and ends its jobs.
func (s *sender) writeUnlocked(b *outBatch) {
	failed := s.err != nil
	s.mu.Unlock()
	var err error
	if !failed {
		if err = s.write(b); err != nil {
			s.fail(err)
		}
	}
	if len(b.jobs) > 0 {
		s.release(b.jobs)
	}
	b.reset()
	s.mu.Lock()
	if err != nil && s.err == nil {
		s.err = err
	}
}

// exclusive makes the caller the writer after what is pending, for a reply that is written piece by piece
// with write; done ends it.
func (s *sender) exclusive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing && s.err == nil {
		s.changed.Wait()
	}
	if s.err != nil {
		return s.err
	}
	s.writing = true
	return nil
}

func (s *sender) done(err error) {
	if err != nil {
		s.fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.err == nil {
		s.err = err
	}
	s.drain()
}

// wait returns when every reply has been written or given up.
func (s *sender) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing {
		s.changed.Wait()
	}
}

func (s *sender) write(b *outBatch) error {
	if len(b.segs) == 0 {
		return s.writeBytes(b.stage.b[:b.n])
	}
	b.seal()
	for segs := b.segs; len(segs) > 0; {
		n, size := 0, 0
		for n < len(segs) && size+len(segs[n]) <= writeChunk {
			size += len(segs[n])
			n++
		}
		if n == 0 {
			if err := s.writeBytes(segs[0]); err != nil {
				return err
			}
			segs = segs[1:]
			continue
		}
		if err := s.writeVector(segs[:n]); err != nil {
			return err
		}
		segs = segs[n:]
	}
	return nil
}

func (s *sender) writeVector(segs [][]byte) error {
	if err := s.arm(); err != nil {
		return err
	}
	whole := append(s.bufs[:0], segs...)
	s.bufs = whole
	n, err := s.bufs.WriteTo(s.nc)
	s.total.Add(uint64(n))
	clear(whole)
	s.bufs = whole[:0]
	return err
}

func (s *sender) writeBytes(p []byte) error {
	for len(p) > 0 {
		if err := s.arm(); err != nil {
			return err
		}
		n, err := s.nc.Write(p[:min(len(p), writeChunk)])
		s.total.Add(uint64(n))
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// arm sees to it that the write deadline is at least three quarters of the timeout away. Renewing it
// seldom keeps timers off the data path.
func (s *sender) arm() error {
	now := time.Now()
	if now.Sub(s.armed) < s.timeout/4 {
		return nil
	}
	s.armed = now
	return s.nc.SetWriteDeadline(now.Add(s.timeout))
}
