package crash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lsad/lsa"
)

// checkAll opens and checks each state. With goOn the last one is where the
// next life begins.
func (r *Run) checkAll(ctx context.Context, instants []*instant, goOn bool) error {
	for n, i := range instants {
		if ctx.Err() != nil {
			return nil
		}
		last := goOn && n == len(instants)-1
		i = r.lose(i)
		err := r.checkComebacks(ctx, i)
		if err == nil {
			err = r.checkState(ctx, i, last)
		}
		if err != nil && ctx.Err() == nil {
			return r.violated(i.String(), err)
		}
	}
	return nil
}

// checkState opens a state, perhaps crashing again meanwhile, and checks it.
func (r *Run) checkState(ctx context.Context, i *instant, goOn bool) error {
	kept := r.keep(i)
	if goOn {
		r.kept.reset()
	}
	s := r.newSite(i.mems, i.fs, i.boot, i.depth+1)
	s.base = i
	if i.depth < 3 && r.rng.IntN(3) == 0 {
		s.planCrashes(1+r.rng.IntN(2), max(r.openOps, 40), 2)
	}
	a, err := r.openState(ctx, s, i)
	if err != nil {
		return r.tell(ctx, kept, i, fmt.Errorf("open: %w", err))
	}
	r.openOps = s.count.Load()
	again := s.take()
	s.clearPlan()
	seen, err := r.check(a, i)
	if err == nil {
		err = checkGoesOn(a, i, seen)
	}
	if err != nil {
		return r.tell(ctx, kept, i, err)
	}
	r.stats.add(i)
	readOnly := a.Status().ReadOnly
	if i.depth < 3 && !readOnly && r.rng.IntN(5) == 0 {
		if err := r.checkSettled(ctx, s, seen); err != nil {
			return err
		}
	}
	for _, sub := range again {
		err := r.checkReturn(ctx, sub)
		if err == nil {
			err = r.checkState(ctx, sub, false)
		}
		if err != nil {
			return fmt.Errorf("%v: %w", sub, err)
		}
	}
	switch {
	case readOnly: // nothing was written, so the device may come back
		return errors.Join(a.Close(), r.checkState(ctx, r.found(i), goOn))
	case !goOn:
		return a.Close()
	}
	if i.lost >= 0 {
		r.stale = append(r.stale, leftBehind{mem: i.lostMem})
		r.troubled.Store(true)
	}
	r.stale = slices.DeleteFunc(r.stale, func(l leftBehind) bool { return l.since >= i.when })
	s.base, s.depth = nil, 1
	r.goOn(s, a, seen)
	return nil
}

// openState opens a state. A device that was being removed may be no member any
// more: it is named then, and left out. It stays at hand, since a loss of power
// may undo what the array was seen to know of it.
func (r *Run) openState(ctx context.Context, s *site, i *instant) (*lsa.Array, error) {
	a, err := r.open(ctx, s, i.lost >= 0)
	if err == nil || i.removing < 0 || s.mems[i.removing] == nil || !strings.Contains(err.Error(), s.mems[i.removing].Name()) {
		return a, err
	}
	if errors.Is(err, lsa.ErrStaleDevice) || errors.Is(err, lsa.ErrNotArray) || errors.Is(err, lsa.ErrDamaged) {
		s.removed = i.removing
		without, again := r.open(ctx, s, i.lost >= 0)
		if !errors.Is(again, lsa.ErrMissingDevice) {
			return without, again
		}
		s.removed = -1 // another was meant: a device that was a member before has its name still
	}
	return nil, err
}

// checkSettled: what an array holds when it has recovered is durable, whatever
// it was before. All but this: where a device died, what it alone had and had not
// synced was given up (promise 6), and a checkpoint passed over it. Should the
// device be there again after kill -9, the kernel may still have these blocks: they can
// be read, as what was written last, until power is lost.
func (r *Run) checkSettled(ctx context.Context, at *site, seen *observation) error {
	i := at.copyNow("nothing, recovery being over", true)
	i.power = at.base.power
	kept := r.keep(i)
	s := r.newSite(i.mems, i.fs, i.boot, i.depth+1)
	s.base = i
	a, err := r.openState(ctx, s, i)
	if err != nil {
		return r.tell(ctx, kept, i, fmt.Errorf("loss of power just after recovery: open: %w", err))
	}
	now, err := r.check(a, i)
	if err == nil {
		err = seen.same(now, i.troubled && hasFailed(a))
	}
	if err != nil {
		return r.tell(ctx, kept, i, fmt.Errorf("loss of power just after recovery: %w", err))
	}
	r.stats.add(i)
	return a.Close()
}

// hasFailed says whether a device of the array is there and out of service.
func hasFailed(a *lsa.Array) bool {
	return slices.ContainsFunc(a.Devices(), func(d lsa.DeviceInfo) bool { return d.State == "read-only" })
}
