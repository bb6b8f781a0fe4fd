package lsa

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"lsad/internal/storefs"
)

// Open opens an array, after recovering what a crash left. It does not take
// the devices over: the caller closes them after Close.
func Open(ctx context.Context, o Options) (*Array, error) {
	a := newArray(o)
	err := a.recover(ctx)
	if err == nil && a.canGoOn() {
		// What it takes was to be seen first, with nothing written.
		if err = a.dismiss(); err == nil {
			a = newArray(o)
			a.goesOn = true
			err = a.recover(ctx)
		}
	}
	if err != nil {
		a.store.Hurry(0)
		if a.db != nil {
			err = errors.Join(err, a.db.Close())
		}
		return nil, fmt.Errorf("open array: %w", err)
	}
	a.store.FailWithin(0) // from here on somebody is served, and the disk may recover
	a.start()
	return a, nil
}

func newArray(o Options) *Array {
	o.fill()
	a := &Array{opts: o, log: o.Logger, catalog: newCatalog(), layerSizes: map[uint64]*layerCount{}, work: newBackground()}
	a.repairs = repairs{wanted: map[repair]bool{}, kicked: make(chan struct{}, 1)}
	a.append.space = sync.NewCond(&a.append.mu)
	a.ballast = newBallast(o.FS, o.Meta, o.MapCache, o.Logger)
	a.store = a.ballast.wrap(storefs.Options{Failed: a.storeFailed, Fatal: a.storeFatal, Rest: a.restCompaction})
	a.store.FailWithin(openPatience)
	a.flush.done.L = &a.flush.mu
	return a
}

// inspect recovers an array in memory and writes nothing, neither to the
// devices nor to the metadata store. On failure it returns what it got to
// know until then; dismiss must follow in any case.
func inspect(ctx context.Context, o Options) (*Array, error) {
	a := newArray(o)
	a.readOnly = true
	return a, a.runSteps(ctx, a.readSteps(ctx))
}

// dismiss ends an inspection.
func (a *Array) dismiss() error {
	a.stop()
	if a.db == nil {
		return nil
	}
	return a.db.Close()
}

// Close flushes, makes a checkpoint and marks the array as closed in order.
func (a *Array) Close() error {
	a.append.mu.Lock()
	if a.append.closed {
		a.append.mu.Unlock()
		return nil
	}
	a.append.closed = true
	a.append.space.Broadcast()
	a.append.mu.Unlock()
	a.store.Hurry(closePatience)
	a.stop()
	var errs []error
	if !a.readOnly {
		errs = append(errs, a.closeInOrder())
	}
	errs = append(errs, a.db.Close())
	return errors.Join(errs...)
}

// closeInOrder writes down that nothing is left to recover. Twice: that all
// devices got as far as that is known from the second, so one that has less is
// not what it was then.
func (a *Array) closeInOrder() error {
	if err := a.Checkpoint(context.Background()); err != nil {
		return err
	}
	if err := a.insistOnSuperblocks(); err != nil {
		return err
	}
	a.super.mu.Lock()
	a.super.clean = true
	a.super.mu.Unlock()
	return a.writeSuperblocks()
}

// RecoveryStep is one thing that Open did.
type RecoveryStep struct {
	Name   string        `json:"name"`
	Detail string        `json:"detail"`
	Took   time.Duration `json:"took_ns"`
}

// RecoveryReport says what Open found and did.
type RecoveryReport struct {
	Steps     []RecoveryStep `json:"steps"`
	Clean     bool           `json:"clean"`     // closed in order before
	Records   int            `json:"records"`   // replayed
	Bytes     int64          `json:"bytes"`     // of log that were scanned
	CutLSN    uint64         `json:"cut_lsn"`   // the last that counts
	Discarded int            `json:"discarded"` // records behind the cut, never flushed
	Took      time.Duration  `json:"took_ns"`   // all of it
	// MayHaveLost: not all that was acknowledged may be there, so the array has another incarnation.
	MayHaveLost bool     `json:"may_have_lost"`
	Gaps        []string `json:"gaps"`               // missing LSNs, in a degraded array
	Damaged     int      `json:"damaged"`            // durable records whose data is damaged
	Restored    bool     `json:"restored,omitempty"` // from a copy that lacks what was served since: MayHaveLost
	OneCopy     int      `json:"one_copy"`           // records of which there should be two copies and is one
	maxDurable  uint64
}

// Recovery returns the report of Open.
func (a *Array) Recovery() RecoveryReport { return a.recovery }
