package crash

import (
	"fmt"
	"slices"
)

// wroteBetween says whether something was written and acknowledged between two moments.
func (r *Run) wroteBetween(from, to int64) bool {
	return slices.ContainsFunc(r.writes, func(w *op) bool { return w.inv > from && w.ack != 0 && w.ack < to })
}

// durableAt is the moment before which all that was acknowledged must be there.
func (r *Run) durableAt(at *instant) (int64, string) {
	if !at.power {
		return at.when, "the process died, the machine did not"
	}
	bound, why := int64(0), "nothing was durable"
	for _, f := range r.flushes {
		if at.damaged && !r.evident(f, at.when) {
			continue
		}
		if f.ack != 0 && f.ack < at.when && f.inv > bound {
			bound, why = f.inv, fmt.Sprintf("%s of %d-%d", f.kind, f.inv, f.ack)
		}
	}
	return bound, why
}

// settledAt is when the last checkpoint began that was durable.
func (r *Run) settledAt(at *instant) int64 {
	if at.closed {
		return at.when
	}
	settled := int64(0)
	for _, c := range r.checkpoints {
		if c.ack < at.when {
			settled = max(settled, c.inv)
		}
	}
	return settled
}

// evident says whether the log must show that a flush succeeded, though some of
// its records were damaged: more later ones, that say so and that were
// themselves flushed, than there was damage.
func (r *Run) evident(f *op, when int64) bool {
	for _, g := range r.flushes {
		if g.ack == 0 || g.ack >= when {
			continue
		}
		n := 0
		for _, w := range r.writes {
			if w.inv > f.ack && w.ack < g.inv {
				n++
			}
		}
		if f.ack != 0 && n > mostDamage {
			return true
		}
	}
	return false
}
