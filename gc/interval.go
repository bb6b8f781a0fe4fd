package gc

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// interval separates blocks by the time expected until their next overwrite. Class 0 is the coldest; each
// class stands for intervals a third as long as those of the class below. What is known of a block's past is
// the class of the segment in which its old version lies; a new observation moves it from there:
//
//   - An overwrite after x LSNs is one sample of the interval. Samples scatter (for a block that is
//     overwritten at random with a fixed rate the standard deviation of the logarithm is 1.3), so a block goes
//     only a fifth of the way towards the class of x. Fractions of a class are rounded up or down by lot, in
//     proportion, which makes the class of a segment the running average that there is no room for elsewhere.
//   - A collected block has lived for its age at least, so it goes to the class of its age if that is colder.
//
// The scale is the sweep: how many LSNs pass while as many segments are collected as the array has. It is
// measured, so that neither the size of the array nor the load matters. Until it is known, after a start,
// blocks move as with dac.
type interval struct {
	sweep atomic.Uint64 // LSNs; 0 before it is known

	mu      sync.Mutex // of Victim
	since   uint64     // LSN of the first of the victims counted
	victims int
}

const (
	intervalClasses = 8
	// intervalTop is the interval, in sweeps, of the boundary below class 0.
	intervalTop = 16
	// intervalStep is the share of the way towards the class of the latest sample, in 256ths.
	intervalStep = 51
	// intervalLearn is how many victims it takes to know the sweep.
	intervalLearn = 32
)

func (*interval) Name() string { return "interval" }
func (*interval) Classes() int { return intervalClasses }

func (p *interval) Place(b Block) int {
	if !b.Known {
		return 0
	}
	sweep := p.sweep.Load()
	if sweep == 0 {
		return min(dac{}.Place(b), intervalClasses-1)
	}
	was := int64(min(max(b.Class, 0), intervalClasses-1)) << 8
	// The class of x in 256ths: log3(top/x), by way of logarithms to base 2.
	to := (log2(intervalTop*sweep) - log2(b.Age()|1)) * 162 / 256 // 1/log2(3) is 0.631
	at := was
	if !b.Collected {
		at += (min(max(to, 0), intervalClasses<<8) - was) * intervalStep / 256
	} else if to < was {
		at = to
	}
	at += int64(mix(b.Now^b.Written<<32) & 255)
	return int(min(max(at>>8, 0), intervalClasses-1))
}

// Victim measures the sweep over the last victims, a sixteenth of the array.
func (p *interval) Victim(now uint64, _ SegmentInfo, segments int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.victims == 0 {
		p.since = now
	}
	if p.victims++; p.victims <= max(intervalLearn, segments/16) || now <= p.since {
		return
	}
	sample := (now - p.since) * uint64(segments) / uint64(p.victims-1)
	if old := p.sweep.Load(); old != 0 {
		sample = old - old/4 + sample/4
	}
	p.sweep.Store(max(sample, 1))
	p.since, p.victims = now, 1
}

// log2 is the logarithm to base 2 in 256ths, exact at powers of two and straight lines between them.
func log2(x uint64) int64 {
	n := bits.Len64(x) - 1
	return int64(n)<<8 + int64((x<<(63-n))>>55&255)
}

// mix spreads the bits of x (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
