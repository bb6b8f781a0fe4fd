package blockdev

import "math/rand/v2"

// tear decides which sectors of one write, discard or allocation survive. Its
// zero value keeps none.
type tear struct {
	whole bool       // keep all
	first int        // keep this many from the start
	rng   *rand.Rand // if set: keep each by itself, with odds of eighths/8
	// eighths is how likely a sector is kept, 1 to 7.
	eighths int
}

// keep returns which of the given sectors survive. It is called for the pages
// of an operation in their order.
func (t *tear) keep(sectors sectorMask) sectorMask {
	switch {
	case t.whole:
		return sectors
	case t.rng != nil:
		return sectors & t.randomMask()
	case t.first == 0:
		return 0
	}
	var kept sectorMask
	for left := sectors; left != 0 && t.first > 0; left &= left - 1 {
		kept |= left & -left
		t.first--
	}
	return kept
}

// randomMask sets each bit with the odds of t.eighths/8: three random bits
// per sector, compared with the number, highest bit first.
func (t *tear) randomMask() sectorMask {
	var mask sectorMask
	for bit := 1; bit < 8; bit <<= 1 {
		r := sectorMask(t.rng.Uint32())
		if t.eighths&bit != 0 {
			mask |= r
		} else {
			mask &= r
		}
	}
	return mask
}

// drawTear picks one way to tear an operation.
func drawTear(rng *rand.Rand) tear {
	if rng.IntN(3) == 0 {
		return tear{first: 1 + rng.IntN(1<<rng.IntN(8))}
	}
	return tear{rng: rng, eighths: 1 + rng.IntN(7)}
}

// drawFate picks what happens to n operations, numbered from the oldest. The
// result is called once for each, in any order.
func drawFate(rng *rand.Rand, n int) func(int) tear {
	all, none := tear{whole: true}, tear{}
	if n == 0 {
		return func(int) tear { return none }
	}
	one := rng.IntN(n)
	odd := [...]tear{all, none, drawTear(rng)}[rng.IntN(3)]
	split := func(before, at, after tear) func(int) tear {
		return func(i int) tear {
			switch {
			case i < one:
				return before
			case i == one:
				return at
			}
			return after
		}
	}
	switch roll := rng.IntN(100); {
	case roll < 10:
		return split(all, all, all)
	case roll < 22:
		return split(none, none, none)
	case roll < 42: // a prefix, its last one perhaps torn
		return split(all, odd, none)
	case roll < 52: // all but one
		return split(all, drawTear(rng), all)
	case roll < 57:
		return split(all, none, all)
	case roll < 65: // only one
		return split(none, odd, none)
	case roll < 80: // whole operations
		odds := 1 + rng.IntN(7)
		return func(int) tear { return tear{whole: rng.IntN(8) < odds} }
	}
	return func(int) tear {
		return [...]tear{all, none, drawTear(rng)}[rng.IntN(3)]
	}
}
