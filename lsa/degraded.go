package lsa

import "lsad/lsa/format"

// canGoOn says whether an array that was opened read-only, since a device is
// missing, can take writes without it: if there are volumes with two copies,
// which lose nothing by that. What had its one copy on the device is lost for
// good then, so arrays without such volumes, or with more devices missing, stay
// as they are.
func (a *Array) canGoOn() bool {
	return a.degraded && a.readOnly && a.missing == 1 && a.twoCopies.Load() && a.writableDevices() > 0
}

// lostLead divides the numbers of superblocks. Each time that devices give up
// others they go on with the next multiple, which is more than any of those can
// have: a device that was the last to take note of a checkpoint, or of an epoch
// that was about to begin, would otherwise know better than they that it was
// given up.
const lostLead = 1 << 32

// newer says whether a superblock was written after another.
func newer(s, than *format.Superblock) bool {
	if x, y := s.Sequence/lostLead, than.Sequence/lostLead; x != y && !planted(ruleKnowMost) {
		return x > y
	}
	return s.Epoch > than.Epoch || s.Epoch == than.Epoch && s.Sequence > than.Sequence
}

// giveUpMissing has the others remember, before anything else is written, that
// they go on without the missing device: it must not come back with what will
// have been changed meanwhile. Until the log that it had parts of is behind a
// checkpoint it is lost, so that a recovery between then and now knows why
// there are gaps; then it is gone.
func (a *Array) giveUpMissing() error {
	if a.missing == 0 || planted(ruleGiveUpFirst) {
		return nil
	}
	a.super.mu.Lock()
	for slot := range a.super.rows {
		row := &a.super.rows[slot]
		if a.devs()[slot] == nil && row.State != format.DeviceGone {
			a.log.Error("the array goes on without a device; what had its only copy there is lost", "slot", slot, "identity", row.ID.String())
			row.State = format.DeviceLost
		}
	}
	if !planted(ruleKnowMost) {
		a.super.sequence = (a.super.sequence/lostLead + 1) * lostLead
	}
	a.super.mu.Unlock()
	return a.insistOnSuperblocks()
}
