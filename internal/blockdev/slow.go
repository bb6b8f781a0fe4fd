package blockdev

import (
	"fmt"
	"sync"
	"time"
)

// Timing is how a simulated disk serves. An operation is cut into parts of
// StripeBytes; each part goes to the channel that is free first, takes it
// for the latency and for the transfer at the channel's share of the
// bandwidth, and the operation ends with its last part. This is how a flash
// disk spreads an operation over its dies, and why a read waits behind
// somebody else's writes.
type Timing struct {
	Channels    int           // parts served at once, 1 or more
	StripeBytes int64         // bytes in a part, 1 or more
	Read        time.Duration // latency of a part
	Write       time.Duration // latency of a part
	// Sync is what a Sync takes after everything before it has ended.
	Sync time.Duration
	// Bytes per second of the whole disk; 0: transfers take no time.
	ReadBandwidth, WriteBandwidth int64
}

// Clock is the time that a Slow lives in.
type Clock interface {
	Now() time.Time
	// SleepUntil returns at t, or at once if that has passed.
	SleepUntil(t time.Time)
}

// Slow makes a device as slow as a disk with the given timing. The device
// below should take next to no time itself: a Mem.
type Slow struct {
	Device
	timing Timing
	clock  Clock

	mu   sync.Mutex
	free []time.Time // when each channel has done all that it was given
}

// NewSlow wraps a device. Devices may share a clock.
func NewSlow(d Device, timing Timing, clock Clock) (*Slow, error) {
	t := timing
	if t.Channels < 1 || t.StripeBytes < 1 || min(t.Read, t.Write, t.Sync) < 0 || min(t.ReadBandwidth, t.WriteBandwidth) < 0 {
		return nil, fmt.Errorf("%s: timing %+v is impossible", d.Name(), t)
	}
	return &Slow{Device: d, timing: timing, clock: clock, free: make([]time.Time, t.Channels)}, nil
}

// serve waits for as long as an operation of n bytes takes.
func (s *Slow) serve(n int64, latency time.Duration, bandwidth int64) {
	s.clock.SleepUntil(s.schedule(s.clock.Now(), n, latency, bandwidth))
}

// schedule gives an operation's parts to the channels and returns its end.
func (s *Slow) schedule(now time.Time, n int64, latency time.Duration, bandwidth int64) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := now
	for n > 0 {
		part := min(n, s.timing.StripeBytes)
		n -= part
		next := s.firstFree()
		start := s.free[next]
		if start.Before(now) {
			start = now
		}
		s.free[next] = start.Add(latency + s.transfer(part, bandwidth))
		if s.free[next].After(end) {
			end = s.free[next]
		}
	}
	return end
}

// transfer is how long one channel takes to move n bytes.
func (s *Slow) transfer(n, bandwidth int64) time.Duration {
	if bandwidth == 0 {
		return 0
	}
	seconds := float64(n) * float64(s.timing.Channels) / float64(bandwidth)
	return time.Duration(seconds * float64(time.Second))
}

func (s *Slow) firstFree() int {
	first := 0
	for i := range s.free {
		if s.free[i].Before(s.free[first]) {
			first = i
		}
	}
	return first
}

// ReadAt implements Device.
func (s *Slow) ReadAt(p []byte, off int64) error {
	s.serve(int64(len(p)), s.timing.Read, s.timing.ReadBandwidth)
	return s.Device.ReadAt(p, off)
}

// TryReadAt implements Device: a disk is always waited for.
func (s *Slow) TryReadAt(p []byte, off int64) error { return ErrWouldBlock }

// Prefetch implements Device: a simulated disk has no memory to read into.
func (s *Slow) Prefetch(off, n int64) {}

// WriteVec implements Device.
func (s *Slow) WriteVec(bufs [][]byte, off int64) error {
	s.serve(vecLen(bufs), s.timing.Write, s.timing.WriteBandwidth)
	return s.Device.WriteVec(bufs, off)
}

// Sync implements Device.
func (s *Slow) Sync() error {
	s.clock.SleepUntil(s.idleAt(s.clock.Now()).Add(s.timing.Sync))
	return s.Device.Sync()
}

// idleAt is when everything that was given to the channels has ended.
func (s *Slow) idleAt(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := now
	for _, t := range s.free {
		if t.After(idle) {
			idle = t
		}
	}
	return idle
}
