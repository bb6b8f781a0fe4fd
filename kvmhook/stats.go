package kvmhook

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// latencyBuckets is how many buckets the histogram of service times has: bucket i counts what took less than 2^i us.
// The last one counts everything.
const latencyBuckets = 26

type counter = atomic.Int64

// counters are what a session counts, all in pages or events. They only grow.
type counters struct {
	faults     counter // messages of the kernel
	zero       counter // faults answered with zeros
	spurious   counter // faults on pages that turned out to be there
	fetched    counter // faults for which content was asked
	underWay   counter // faults on pages that somebody was fetching already
	lost       counter // faults answered with an error
	retried    counter // installations that the kernel put off
	demandPage counter // bytes installed that a fault had asked for
	around     counter // bytes installed beside those
	filled     counter // bytes installed by the background fill
	read       counter // bytes that came from the source
	dropped    counter // bytes that came and were no longer wanted
	removals   counter // bytes that the VMM removed
	spared     counter // bytes of content that were removed before they were asked for
	poisoned   counter // bytes
	present    counter // bytes of content that somebody else had put there, or unmapped
	filledHuge counter // bytes of filled that are huge pages

	heldFaults counter        // faults answered with a page that was held back
	held       counter        // pages held back now
	fates      [fates]counter // pages that were to be held back

	latency      [latencyBuckets]atomic.Int64
	latencySumUs atomic.Int64
}

// served notes how long a fault took, from when it was read to when its page was there.
func (c *counters) served(d time.Duration) {
	us := max(0, d.Microseconds())
	c.latency[min(bits.Len64(uint64(us)), latencyBuckets-1)].Add(1)
	c.latencySumUs.Add(us)
}

// Latency is a distribution of service times.
type Latency struct {
	Count  int64   `json:"count"`
	SumUs  int64   `json:"sum_us"`
	Counts []int64 `json:"counts"` // in bucket i those of less than 2^i us, and not less than the bucket before has
}

// QuantileUs is an upper bound of a quantile, in microseconds, 0 if nothing was counted.
func (l Latency) QuantileUs(q float64) int64 {
	rank := int64(q * float64(l.Count))
	for i, n := range l.Counts {
		if rank -= n; rank < 0 {
			return 1 << i
		}
	}
	return 0
}

func (c *counters) latencies() Latency {
	l := Latency{SumUs: c.latencySumUs.Load(), Counts: make([]int64, latencyBuckets)}
	for i := range c.latency {
		l.Counts[i] = c.latency[i].Load()
		l.Count += l.Counts[i]
	}
	return l
}
