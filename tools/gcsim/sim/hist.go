package sim

import "math/bits"

// histogram counts durations in ns, in buckets of a thirty-second of a power of two: within 3 %.
type histogram struct {
	counts [64 * 32]uint64
	total  uint64
	max    int64
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
	n := b/32 + 4
	return int64(32+b%32) << (n - 5)
}

func (h *histogram) add(v int64) {
	h.counts[bucket(v)]++
	h.total++
	h.max = max(h.max, v)
}

// quantile is the value, in ns, that a share q of the samples does not pass.
func (h *histogram) quantile(q float64) int64 {
	want := uint64(q*float64(h.total)) + 1
	sum := uint64(0)
	for b, n := range h.counts {
		if sum += n; sum >= want {
			return min(lower(b+1), h.max)
		}
	}
	return h.max
}
