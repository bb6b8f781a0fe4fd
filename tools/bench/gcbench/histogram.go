package gcbench

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets of a thirty-second of a power of two: within 3 %.
type Histogram struct {
	counts [64 * 32]uint64
	total  uint64
	max    int64 // ns
}

func bucket(v int64) int {
	if v < 32 {
		return int(max(v, 0))
	}
	n := bits.Len64(uint64(v)) - 1
	return (n-4)*32 + int(v>>(n-5)&31)
}

// lower is the least value of a bucket.
func lower(b int) int64 {
	if b < 32 {
		return int64(b)
	}
	return int64(32+b%32) << (b/32 - 1)
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucket(int64(d))]++
	h.total++
	h.max = max(h.max, int64(d))
}

// Quantile is the duration that a share q of those counted does not pass.
func (h *Histogram) Quantile(q float64) time.Duration {
	want, sum := uint64(q*float64(h.total))+1, uint64(0)
	for b, n := range h.counts {
		if sum += n; sum >= want {
			return time.Duration(min(lower(b+1), h.max))
		}
	}
	return time.Duration(h.max)
}

// Above is how many of those counted took d or longer, to the precision of a bucket.
func (h *Histogram) Above(d time.Duration) (n uint64) {
	for _, c := range h.counts[bucket(int64(d)):] {
		n += c
	}
	return n
}

// Latency is what a histogram says, in microseconds.
type Latency struct {
	Requests uint64  `json:"requests"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	P999     float64 `json:"p99_9_us"`
	P9999    float64 `json:"p99_99_us"`
	Max      float64 `json:"max_us"`
	Above    uint64  `json:"above_50ms"`
}

// Latency sums the histogram up.
func (h *Histogram) Latency() Latency {
	us := func(d time.Duration) float64 { return float64(d) / 1e3 }
	return Latency{
		Requests: h.total, P50: us(h.Quantile(.5)), P99: us(h.Quantile(.99)), P999: us(h.Quantile(.999)), P9999: us(h.Quantile(.9999)),
		Max: us(time.Duration(h.max)), Above: h.Above(StallLimit),
	}
}

// StallLimit is what a write may wait because of collection.
const StallLimit = 50 * time.Millisecond
