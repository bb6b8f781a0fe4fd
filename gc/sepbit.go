package gc

import (
	"math"
	"sync/atomic"
)

// sepBIT separates blocks by when their next overwrite is expected to invalidate them (Wang et al., FAST'22). A
// user's write is expected to live as long as the version that it replaces did; a collected block is expected
// to live the longer, the older it is. Lifetimes are compared with the average life of the segments of the
// short-lived class, which adapts to the load.
//
//	0  user writes whose old version was short-lived     3  other collected blocks younger than 4 lives
//	1  all other user writes                             4  younger than 16 lives
//	2  collected from class 0                            5  older
type sepBIT struct {
	life  atomic.Uint64 // average life of a segment of class 0, LSNs; 0 before it is known: endless
	count atomic.Uint64 // victims of class 0 since life was set, in the low bits, and the sum of their lives
}

// sepBITVictims is how many segments make an average.
const sepBITVictims = 16

func (*sepBIT) Name() string { return "sepbit" }
func (*sepBIT) Classes() int { return 6 }

func (p *sepBIT) Place(b Block) int {
	life := p.life.Load()
	if life == 0 {
		life = math.MaxUint64 / 16 // so that 16 lives still fit
	}
	if !b.Collected {
		if b.Known && b.Age() < life {
			return 0
		}
		return 1
	}
	if b.Class == 0 {
		return 2
	}
	switch age := b.Age(); {
	case age < 4*life:
		return 3
	case age < 16*life:
		return 4
	}
	return 5
}

func (p *sepBIT) Victim(now uint64, s SegmentInfo, _ int) {
	if s.Class != 0 {
		return
	}
	for {
		was := p.count.Load()
		n, sum := was%sepBITVictims+1, was/sepBITVictims+now-s.Opened
		if n == sepBITVictims {
			if p.count.CompareAndSwap(was, 0) {
				p.life.Store(sum / n)
				return
			}
		} else if p.count.CompareAndSwap(was, sum*sepBITVictims+n) {
			return
		}
	}
}
