package lsa

import (
	"math/bits"
	"sync"
)

// stripes order writes that need a block's old contents (those of part of a
// block) against all other writes to it. A stripe stands for every 64th MiB of a
// volume. Whole-block writes share their stripes; a partial one has its own
// to itself, from reading the old block until the new one is committed.
type stripes [64]sync.RWMutex

// stripeMask names the stripes of count blocks from block on.
func stripeMask(block, count uint64) uint64 {
	const blocksPerStripe = 256
	first, last := block/blocksPerStripe, (block+count-1)/blocksPerStripe
	if last-first >= 63 {
		return ^uint64(0)
	}
	var mask uint64
	for i := first; i <= last; i++ {
		mask |= 1 << (i % 64)
	}
	return mask
}

// lock takes the stripes of both masks in ascending order: those in exclusive
// alone, the others in shared together with others.
func (s *stripes) lock(shared, exclusive uint64) {
	for m := shared | exclusive; m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		if exclusive>>i&1 == 1 {
			s[i].Lock()
		} else {
			s[i].RLock()
		}
	}
}

// unlock releases what lock took with the same arguments.
func (s *stripes) unlock(shared, exclusive uint64) {
	for m := shared | exclusive; m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		if exclusive>>i&1 == 1 {
			s[i].Unlock()
		} else {
			s[i].RUnlock()
		}
	}
}
