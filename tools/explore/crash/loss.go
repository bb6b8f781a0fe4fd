package crash

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa"
)

// Values of Run.spare, which says which device the array can do without: each
// block of the volumes with two copies has a good one elsewhere. It is a slot,
// or one of these.
const (
	anyToSpare  = -1
	noneToSpare = -2
)

// leftBehind is a device that the array went on without.
type leftBehind struct {
	mem   *blockdev.Mem
	since int64 // of Run.clock; 0 if it was before the life began
}

// lose has a device that can be spared be gone when the state is opened, in
// about half of the states.
func (r *Run) lose(i *instant) *instant {
	often := 1
	if r.cfg.Focus == Losses {
		often = 4
	}
	if !r.cfg.Devices || i.spare == noneToSpare || r.rng.IntN(1+often) == 0 {
		return i
	}
	var slots []int
	present, takeWrites := 0, 0
	for slot, m := range i.mems {
		if m == nil {
			continue
		}
		if present++; slot != i.removing && slot != i.adding && r.serves(slot) {
			takeWrites++
		}
		if slot != i.adding && (i.spare == anyToSpare || i.spare == int32(slot)) {
			slots = append(slots, slot)
		}
	}
	// While one of two devices is being removed or added, the other alone has what is new.
	if len(slots) == 0 || present < 2 || i.removing >= 0 && takeWrites < 2 {
		return i
	}
	c := *i
	c.lost = slots[r.rng.IntN(len(slots))]
	if takeWrites < 1 || takeWrites == 1 && r.serves(c.lost) {
		return i // what is left could be read, but knows nothing of the array's last epochs
	}
	c.lostMem = i.mems[c.lost]
	c.mems = slices.Clone(i.mems)
	c.mems[c.lost] = nil
	c.troubled = true
	return &c
}

// serves says whether a device was in service when the life began or was added
// since, and is not dead.
func (r *Run) serves(slot int) bool {
	return slot != r.site.dead() && (slot >= r.members || slices.Contains(r.inService, slot))
}

// found is the state with the device that was lost, which others may find too.
func (r *Run) found(i *instant) *instant {
	c := *i
	c.mems = slices.Clone(i.mems)
	c.mems[i.lost] = i.lostMem.KillClone(r.rng)
	c.lost, c.lostMem = -1, nil
	return &c
}

// checkGoesOn: an array of which a device is lost takes writes if it has
// volumes with two copies, and else none.
func checkGoesOn(a *lsa.Array, i *instant, seen *observation) error {
	two := false
	for _, v := range seen.catalog.volumes {
		two = two || v.vol.copies == 2
	}
	if got := a.Status().ReadOnly; two && got || got && i.lost < 0 {
		return fmt.Errorf("the array is read-only; volumes with two copies %v, device lost %d", two, i.lost)
	}
	return nil
}

// checkComebacks: devices that the array went on without, and earlier contents
// of others, are refused; and a device that is missing is not passed over unasked.
func (r *Run) checkComebacks(ctx context.Context, i *instant) error {
	if !r.cfg.Devices || r.rng.IntN(3) > 0 {
		return nil
	}
	if i.lost >= 0 && i.removing < 0 {
		if err := r.refused(ctx, i, i.mems, lsa.ErrMissingDevice); err != nil {
			return fmt.Errorf("a device is missing: %w", err)
		}
	}
	if n := len(r.stale); n > 0 {
		old := r.stale[r.rng.IntN(n)]
		if old.since >= i.when {
			return nil
		}
		if err := r.refused(ctx, i, append(slices.Clone(i.mems), old.mem), lsa.ErrStaleDevice, lsa.ErrNotArray, lsa.ErrDamaged); err != nil {
			return fmt.Errorf("a device came back that the array went on without: %w", err)
		}
	}
	slot := r.rng.IntN(len(i.mems))
	if i.faulted || i.removing >= 0 || len(r.inService) < 2 || !slices.Contains(r.inService, slot) || slot >= len(r.former) || r.former[slot] == nil || i.mems[slot] == nil {
		return nil
	}
	mems := slices.Clone(i.mems)
	mems[slot] = r.former[slot]
	if err := r.refused(ctx, i, mems, lsa.ErrStaleDevice, lsa.ErrMissingDevice); err != nil {
		return fmt.Errorf("device %d came back with what it held earlier: %w", slot, err)
	}
	return nil
}

// refused sees that an array of such devices is not opened, for one of the reasons.
func (r *Run) refused(ctx context.Context, i *instant, mems []*blockdev.Mem, why ...error) error {
	s := r.newSite(nil, i.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: r.rng}), i.boot, 4)
	for _, m := range mems {
		if m != nil {
			s.mems = append(s.mems, m.KillClone(r.rng))
		}
	}
	a, err := r.open(ctx, s, false)
	if err == nil {
		_ = a.Close()
		return errors.New("the array was opened")
	}
	if !slices.ContainsFunc(why, func(e error) bool { return errors.Is(err, e) }) {
		return err
	}
	r.stats.change(func(t *Totals) { t.Refused++ })
	return nil
}

// checkReturn has the lost device come back after a crash of the first opening
// without it. Either that opening did not come far enough to make a difference,
// or it is refused.
func (r *Run) checkReturn(ctx context.Context, sub *instant) error {
	if sub.lost < 0 || sub.closed && sub.removing >= 0 || r.rng.IntN(2) == 0 {
		return nil
	}
	i := r.found(sub)
	i.fs = sub.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: r.rng})
	for slot, m := range i.mems {
		if m != nil {
			i.mems[slot] = m.KillClone(r.rng)
		}
	}
	kept := r.keep(i)
	s := r.newSite(i.mems, i.fs, i.boot, 4)
	a, err := r.openState(ctx, s, i)
	if errors.Is(err, lsa.ErrStaleDevice) {
		r.stats.change(func(t *Totals) { t.Refused++ })
		return nil
	}
	if err != nil {
		return r.tell(ctx, kept, i, fmt.Errorf("the lost device came back: open: %w", err))
	}
	if s.removed == sub.lost { // refused, and left out as one that was being removed
		r.stats.change(func(t *Totals) { t.Refused++ })
		return a.Close()
	}
	if _, err := r.check(a, i); err != nil {
		return r.tell(ctx, kept, i, fmt.Errorf("the lost device came back, and was taken back: %w", err))
	}
	r.stats.change(func(t *Totals) { t.TakenBack++ })
	return a.Close()
}
