package lsa

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// repair asks for a bad copy of a block to be written anew.
type repair struct {
	at  place
	lsn uint64
	bad format.Place
}

// repairs are those asked for and not made yet.
type repairs struct {
	mu     sync.Mutex
	wanted map[repair]bool
	kicked chan struct{}
}

// maxRepairs are remembered. What is beyond is found again, when it is read
// next or by a scrub.
const maxRepairs = 4096

func (r *repairs) ask(x repair) {
	r.mu.Lock()
	if len(r.wanted) < maxRepairs {
		r.wanted[x] = true
	}
	r.mu.Unlock()
	kick(r.kicked)
}

func (r *repairs) take() (x repair, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for x := range r.wanted {
		delete(r.wanted, x)
		return x, true
	}
	return x, false
}

// repairAll makes the repairs that were asked for.
func (a *Array) repairAll() {
	for a.work.ctx.Err() == nil {
		r, ok := a.repairs.take()
		if !ok {
			return
		}
		if err := a.repair(r); err != nil {
			if more, ok := a.logs.notRepaired.Allow(time.Now()); ok {
				a.log.Error("a bad copy of a block could not be written anew", "layer", r.at.layer, "block", r.at.block, "device", a.deviceOf(r.bad), "place", r.bad.String(), "error", err, "more_since_last", more)
			}
		}
	}
}

// errNoGoodCopy: the other copy is as bad.
var errNoGoodCopy = errors.New("there is no good copy")

// repair appends the block's good bytes again, as a move from the bad place,
// if the map still has it there.
func (a *Array) repair(r repair) error {
	if a.readOnly {
		return nil
	}
	turn := a.readers.enter()
	layer, e, err := a.owner(r.at)
	if err != nil || e.LSN != r.lsn || !e.Has(r.bad) || e.Place[1] == 0 {
		a.readers.exit(turn)
		return err
	}
	buf := make([]byte, format.BlockSize)
	good := e.Other(r.bad)
	err = a.readPlace(buf, []blockmap.Entry{placed(&e, good)}, 0, false)
	if planted(ruleRepairFromGood) {
		d := a.devOf(r.bad)
		err = d.dev.ReadAt(buf, d.offset(r.bad.Segment(), r.bad.Sector()))
		good, r.bad = r.bad, good
	}
	a.readers.exit(turn)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoGoodCopy, err)
	}
	b := newBatch(originMoved)
	defer b.release()
	b.avoid = 1 << good.Device()
	b.addMove(layer, r.at.block, r.lsn, r.bad, e.CRC, buf)
	if err := a.submit(b); err != nil {
		return err
	}
	a.counters.repaired.Add(1)
	if more, ok := a.logs.repaired.Allow(time.Now()); ok {
		a.log.Info("a bad copy of a block was written anew", "layer", layer, "block", r.at.block, "device", a.deviceOf(r.bad), "place", r.bad.String(), "more_since_last", more)
	}
	return nil
}

// deviceOf names the device of a place, "" if it is gone.
func (a *Array) deviceOf(p format.Place) string {
	if d := a.devOf(p); d != nil {
		return d.dev.Name()
	}
	return ""
}

// placed is an entry of one copy, that at p.
func placed(e *blockmap.Entry, p format.Place) blockmap.Entry {
	one := *e
	one.Place = [2]format.Place{p}
	return one
}

// owner finds the layer that has the block which a reader of another layer
// sees, and its entry there.
func (a *Array) owner(at place) (layer uint64, e blockmap.Entry, err error) {
	for _, l := range a.blocks.Layers.Chain(at.layer) {
		e, own, err := a.blocks.OwnEntry(l, at.block)
		if err != nil || own {
			return l, e, err
		}
	}
	return 0, blockmap.Entry{}, nil
}

// RepairNow makes the repairs that reads asked for, and returns how many are
// left undone since they failed.
func (a *Array) RepairNow(ctx context.Context) error {
	var errs []error
	for ctx.Err() == nil {
		r, ok := a.repairs.take()
		if !ok {
			break
		}
		if err := a.repair(r); err != nil {
			errs = append(errs, fmt.Errorf("repair block %d of layer %d: %w", r.at.block, r.at.layer, err))
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}
