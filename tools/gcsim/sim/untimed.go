package sim

import (
	"context"
	"fmt"
	"time"
)

// Untimed runs a trace with devices that take no time: only write amplification comes out. Virtual time goes
// on by gap with every write, so that timers run. Fill first writes every block once, in order. It counts from
// the write number warm on, and returns the write amplification since then.
func (a *Array) Untimed(t Trace, gap time.Duration, warm int) (float64, error) {
	_, err := a.untimed(t, gap, warm)
	return a.Amplification(), err
}

// untimed also returns how much time went by.
func (a *Array) untimed(t Trace, gap time.Duration, warm int) (time.Duration, error) {
	now := epoch
	next := make([]time.Time, len(a.devs))
	look := true
	a.onTook = func(*device) { look = true }
	writes := 0
	write := func(block uint32) error {
		if _, err := a.Write(block); err != nil {
			return err
		}
		now = now.Add(gap)
		if writes++; writes == warm {
			a.resetCounters()
		}
		for i, d := range a.devs {
			if !look && now.Before(next[i]) {
				continue
			}
			var err error
			if next[i], err = a.settle(d, now); err != nil {
				return err
			}
		}
		look = false
		return nil
	}
	for b := range a.spec.Blocks {
		if err := write(uint32(b)); err != nil {
			return 0, fmt.Errorf("filling the array: %w", err)
		}
	}
	for {
		op, ok := t.Next()
		if !ok {
			return now.Sub(epoch), nil
		}
		if op.Read {
			continue
		}
		for i := range op.Blocks {
			if err := write(op.Block + i); err != nil {
				return 0, err
			}
		}
	}
}

// settle collects as long as the device's collector wants to, in no time.
func (a *Array) settle(d *device, now time.Time) (time.Time, error) {
	for {
		d.checkpoint()
		act := a.gc.Step(d.gc, now)
		if !act.Collect {
			return act.Until, nil
		}
		moved, err := d.Collect(context.Background(), act.Victim.ID, nil)
		d.gc.Done(moved, err)
		if err != nil {
			return now, err
		}
	}
}
