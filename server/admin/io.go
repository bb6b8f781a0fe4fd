package admin

import (
	"math/bits"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Latencies are counted in buckets whose upper bounds are powers of two from 8.192 us to 17.2 s, the powers
// of two of a nanosecond.
const (
	firstBucketShift = 13
	numBuckets       = 22 // the last one has no upper bound
)

// bucketBound is the upper bound of bucket i, in seconds.
func bucketBound(i int) float64 { return float64(uint64(1)<<(firstBucketShift+i)) / 1e9 }

// bucketOf is the bucket of a latency.
func bucketOf(d time.Duration) int {
	if d <= 0 {
		return 0
	}
	return min(max(bits.Len64(uint64(d-1))-firstBucketShift, 0), numBuckets-1)
}

// IO counts the requests of clients, by volume and operation.
type IO struct {
	ops []string

	mu      sync.Mutex
	volumes map[string]*VolumeIO
}

// NewIO counts the operations named, which VolumeIO.Record knows by their index.
func NewIO(ops []string) *IO {
	return &IO{ops: ops, volumes: map[string]*VolumeIO{}}
}

// VolumeIO counts the requests to one volume. It may be used from many goroutines at once.
type VolumeIO struct {
	ops []opCounters
}

type opCounters struct {
	bytes, errors, nanos atomic.Uint64
	buckets              [numBuckets]atomic.Uint64
}

// Volume is the recorder of a volume or snapshot.
func (s *IO) Volume(name string) *VolumeIO {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.volumes[name]
	if v == nil {
		v = &VolumeIO{ops: make([]opCounters, len(s.ops))}
		s.volumes[name] = v
	}
	return v
}

// Rename keeps the counts of a volume, and of its snapshots, that has another name now.
func (s *IO) Rename(from, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, v := range s.volumes {
		if rest, ok := belongs(name, from); ok {
			delete(s.volumes, name)
			s.volumes[to+rest] = v
		}
	}
}

// Forget drops the counts of a volume, and of its snapshots, that is no more.
func (s *IO) Forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.volumes {
		if _, ok := belongs(n, name); ok {
			delete(s.volumes, n)
		}
	}
}

// belongs says whether name is the volume or one of its snapshots, and what follows the volume's name.
func belongs(name, volume string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(name, volume)
	return rest, ok && (rest == "" || rest[0] == '@')
}

// Record counts n requests of one operation that were answered together. It costs three atomic additions, one
// more if there were errors.
func (v *VolumeIO) Record(op, n int, bytes int64, errors int, latency time.Duration) {
	if op < 0 || op >= len(v.ops) || n <= 0 {
		return
	}
	c := &v.ops[op]
	c.bytes.Add(uint64(max(bytes, 0)))
	c.nanos.Add(uint64(max(latency, 0)) * uint64(n))
	c.buckets[bucketOf(latency)].Add(uint64(n))
	if errors > 0 {
		c.errors.Add(uint64(errors))
	}
}

// opSample is what was counted for one operation on one volume.
type opSample struct {
	volume, op    string
	count         uint64
	bytes, errors uint64
	seconds       float64
	cumulative    map[float64]uint64 // by upper bound
}

// samples are the counts of every operation that occurred, in order of volume and operation.
func (s *IO) samples() []opSample {
	s.mu.Lock()
	names := make([]string, 0, len(s.volumes))
	for name := range s.volumes {
		names = append(names, name)
	}
	sort.Strings(names)
	volumes := make([]*VolumeIO, len(names))
	for i, name := range names {
		volumes[i] = s.volumes[name]
	}
	s.mu.Unlock()

	var all []opSample
	for i, v := range volumes {
		for op := range v.ops {
			if o := v.ops[op].sample(); o.count > 0 {
				o.volume, o.op = names[i], s.ops[op]
				all = append(all, o)
			}
		}
	}
	return all
}

func (c *opCounters) sample() opSample {
	o := opSample{cumulative: make(map[float64]uint64, numBuckets-1)}
	for i := range c.buckets {
		o.count += c.buckets[i].Load()
		if i < numBuckets-1 {
			o.cumulative[bucketBound(i)] = o.count
		}
	}
	o.bytes, o.errors = c.bytes.Load(), c.errors.Load()
	o.seconds = float64(c.nanos.Load()) / 1e9
	return o
}
