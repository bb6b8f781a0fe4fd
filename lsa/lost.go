package lsa

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What was appended to one device alone and not synced is lost if that device
// fails for good. The map goes on referring to it there, so that reads of
// these blocks fail rather than return what was there before. The log has a gap,
// which no recovery may find below what is said to be durable: so nothing
// more is, until a checkpoint has passed over it. Then volumes with two copies
// go on as before; flushes of volumes with one fail, since nobody knows which
// of them lost something.

// errLostAhead: all that is there is synced, but a checkpoint has to pass over
// what is lost, or has one copy and should have two, before it is durable.
var errLostAhead = fmt.Errorf("%w: records were lost with a device that failed, or might be, and no checkpoint has passed over them yet", ErrFailed)

// lose gives up a record of a failed device.
func (a *Array) lose(d *device, ref recordRef) {
	a.append.mu.Lock()
	last := a.append.nextLSN - 1
	a.append.mu.Unlock()
	a.lostUpTo.Store(max(a.lostUpTo.Load(), last)) // by the tidy loop alone, or a start
	d.saved(ref)
}

// lostAhead says whether a checkpoint has to pass over records first that are
// lost, or might be.
func (a *Array) lostAhead() bool { return a.toPassOver() > a.checkpoint.lsn.Load() }

// toPassOver is the last LSN that a checkpoint has to have behind it.
func (a *Array) toPassOver() uint64 { return max(a.lostUpTo.Load(), a.aloneUpTo.Load()) }

// passOver makes checkpoints until one has what was lost behind it.
func (a *Array) passOver() error {
	for a.lostAhead() {
		if a.committed.Load() < a.toPassOver() { // the record is on its way
			if err := a.failed(); err != nil {
				return err
			}
			time.Sleep(100 * time.Microsecond)
			continue
		}
		if err := a.Checkpoint(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// syncForCut returns when every record up to lsn, which is committed, is
// synced or lost.
func (a *Array) syncForCut(lsn uint64) error {
	for tries := 0; a.flush.durable.Load() < lsn; {
		ran, err := a.syncRound()
		if ran && errors.Is(err, errLostAhead) {
			return nil
		}
		if err != nil && !errors.Is(err, errLostAhead) && !a.worthAnother(&tries) {
			return err
		}
	}
	return nil
}

// Flush makes everything that was acknowledged before the call durable, on
// every handle and volume. It fails, until the array is opened again, where
// writes to volumes with one copy were lost with a device.
func (h *Handle) Flush() error {
	if err := h.a.syncTo(h.a.committed.Load()); err != nil {
		return err
	}
	if h.v.Copies < 2 && h.a.lostUpTo.Load() > 0 {
		return fmt.Errorf("flush volume %q: %w: a device failed that alone had what was written last to volumes with one copy", h.name, ErrFailed)
	}
	return nil
}
