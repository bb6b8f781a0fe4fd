package lsa

import (
	"context"
	"fmt"

	"lsad/lsa/format"
)

// settleSegments works out the state of each segment. What was ready and not
// opened is free, under a generation that no record of the dead tail can have;
// what was open is sealed or will be appended to again.
func (a *Array) settleSegments(found *scanned) {
	for _, d := range a.devs() {
		if d == nil {
			continue
		}
		var wereOpen []uint32
		for i := range d.segs {
			s := &d.segs[i]
			use := found.uses[segmentUse{d.slot, uint32(i)}]
			if s.state == segOpen || s.state == segReady && use != nil {
				wereOpen = append(wereOpen, uint32(i))
			}
			if use != nil {
				if s.state == segReady { // what the checkpoint has is of an earlier use
					s.firstLSN, s.used, s.maxLSN = use.firstLSN, 0, 0
				}
				s.state, s.generation = segSealed, use.generation
				s.used, s.maxLSN = max(s.used, use.used), max(min(s.maxLSN, a.recovery.CutLSN), use.maxLSN)
				s.dirty.Store(true)
			} else if s.state == segReady {
				s.state = segFree
				if !planted(ruleNewGeneration) && !planted(ruleRaiseEpoch) {
					s.generation++
				}
				s.dirty.Store(true)
			} else if s.state == segOpen {
				s.state, s.maxLSN = segSealed, min(s.maxLSN, a.recovery.CutLSN)
				s.dirty.Store(true)
			}
			if s.state == segSealed && s.maxLSN > a.recovery.CutLSN {
				s.maxLSN = a.recovery.CutLSN
				s.dirty.Store(true)
			}
			if s.state == segFree {
				s.stale = true
				d.free++
			}
		}
		a.chooseReopened(d, wereOpen, found)
	}
	a.updateLimit()
}

// settle makes what was recovered durable, then, before anybody is served,
// makes all that lies behind the cut dead by beginning a new epoch.
func (a *Array) settle() (string, error) {
	a.super.mu.Lock()
	a.recovery.Clean, a.super.clean = a.super.clean, false // nothing that is written from now on may say so
	a.super.mu.Unlock()
	if a.readOnly {
		a.renew()
		return "degraded: read-only, nothing is written", nil
	}
	if err := a.giveUpMissing(); err != nil {
		return "", err
	}
	if err := a.settleTail(); err != nil {
		return "", err
	}
	if err := a.Checkpoint(context.Background()); err != nil {
		return "", err
	}
	return a.raiseEpoch()
}

// renew gives the array another incarnation if writes that were acknowledged may be lost: those that were not
// flushed with a loss of power, those that a missing device alone had, and those since a copy was made that the array was
// restored from. Where nothing may be written it has that one until it is closed.
func (a *Array) renew() {
	s := &a.super
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := a.lastServed(); s.epoch < last {
		a.log.Error("the array is older than what was served here since this machine started: it was restored from a copy; who still has a volume of it connected will see errors",
			"epoch", s.epoch, "served", last)
		s.epoch = last // so that the next one is newer than both
		a.recovery.Restored = true
	}
	if a.recovery.Restored || !a.recovery.Clean && (a.degraded || s.boot != a.opts.BootID) {
		s.incarnation = randomUint64()
		a.recovery.MayHaveLost = true
	}
}

func (a *Array) lastServed() uint64 {
	if a.opts.Served == nil {
		return 0
	}
	return a.opts.Served.Last(a.super.array)
}

func (a *Array) raiseEpoch() (string, error) {
	a.renew()
	s := &a.super
	s.mu.Lock()
	if !planted(ruleRaiseEpoch) {
		s.epoch++
	}
	s.cut, s.served, s.boot = a.committed.Load(), false, a.opts.BootID
	s.incompat |= format.FeaturesIncompat
	for i := range s.rows {
		if s.rows[i].State == format.DeviceLost { // the checkpoint has what is left
			s.rows[i].State = format.DeviceGone
		}
	}
	s.mu.Unlock()
	// Twice: a device that still has the old epoch is stale only if another
	// says that all had the new one.
	if err := a.insistOnSuperblocks(); err != nil {
		return "", err
	}
	a.blocks.StoreWhole(false) // all devices say by now that deltas may follow
	s.mu.Lock()
	s.served = true
	s.mu.Unlock()
	if err := a.insistOnSuperblocks(); err != nil {
		return "", err
	}
	if a.opts.Served != nil {
		a.opts.Served.Note(s.array, s.epoch)
	}
	a.reopen()
	a.prepareSegments()
	return fmt.Sprintf("epoch %d begins behind LSN %d", s.epoch, s.cut), nil
}

// insistOnSuperblocks writes them without the devices that fail to take them:
// these go out of service, and the others remember it.
func (a *Array) insistOnSuperblocks() error {
	for {
		before := a.writableDevices()
		failed := a.noteFailed()
		err := a.writeSuperblocks()
		if err == nil {
			for _, d := range failed {
				d.remembered(format.DeviceReadOnly)
			}
			return nil
		}
		if a.writableDevices() == before || a.writableDevices() == 0 {
			return err
		}
	}
}

// noteFailed puts the devices that are out of service down as that, for the next
// superblocks, and returns them.
func (a *Array) noteFailed() (failed []*device) {
	a.super.mu.Lock()
	defer a.super.mu.Unlock()
	for _, d := range a.devs() {
		if d != nil && !d.writable.Load() && a.super.rows[d.slot].State != format.DeviceGone {
			a.super.rows[d.slot].State = format.DeviceReadOnly
			failed = append(failed, d)
		}
	}
	return failed
}

func (a *Array) writableDevices() int {
	n := 0
	for _, d := range a.devs() {
		if d != nil && d.takesWrites() {
			n++
		}
	}
	return n
}
