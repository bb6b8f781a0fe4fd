package lsa

import (
	"fmt"
	"slices"

	"lsad/lsa/format"
)

// orderAndCut chooses the records that count: in order of LSN without a gap.
// A gap above what is known to be durable is the tail of the crash; one below
// is damage, and an array that lacks durable changes is not opened.
func (a *Array) orderAndCut(found *scanned) (string, error) {
	slices.SortStableFunc(found.records, a.compareRecords)
	durable := a.checkpoint.lsn.Load()
	for _, r := range found.records {
		durable = max(durable, r.h.DurableLSN)
	}
	a.recovery.maxDurable = durable
	next := a.checkpoint.lsn.Load() + 1
	for i, r := range found.records {
		if r.h.LastLSN() < next {
			continue // another copy of it was taken
		}
		if r.h.FirstLSN > next {
			if next <= durable && !planted(ruleGapIsDamage) {
				gap := fmt.Sprintf("LSN %d to %d are missing, and everything up to %d was durable", next, r.h.FirstLSN-1, durable)
				if !a.readOnly && !a.degraded {
					return "", fmt.Errorf("%w: %s", ErrGap, gap)
				}
				a.recovery.Gaps = append(a.recovery.Gaps, gap)
			} else if (!a.degraded || planted(ruleGapsOfLost)) && !planted(ruleCutAtGap) {
				break
			}
		}
		if !r.intact {
			if hasIntact(found.records[i+1:], r.h.FirstLSN) {
				continue
			}
			if r.h.LastLSN() > durable {
				break
			}
			a.recovery.Damaged++
			a.log.Error("a durable record is damaged; reads of its blocks will fail", "lsn", r.h.FirstLSN, "device", a.devs()[r.h.Device].dev.Name(), "segment", r.h.Segment)
		}
		if r.h.Flags&format.FlagTwo != 0 {
			if r.second = otherCopy(found.records[i+1:], r); r.second == nil {
				a.recovery.OneCopy++
			}
		}
		found.accept(r)
		next = r.h.LastLSN() + 1
	}
	if next <= durable && !planted(ruleGapIsDamage) {
		gap := fmt.Sprintf("it ends at LSN %d, and everything up to %d was durable", next-1, durable)
		if !a.readOnly && !a.degraded {
			return "", fmt.Errorf("%w: %s", ErrGap, gap)
		}
		a.recovery.Gaps = append(a.recovery.Gaps, gap)
	}
	a.recovery.CutLSN = next - 1
	a.recovery.Discarded = len(found.records) - found.counted
	a.keepTail(found, durable)
	return fmt.Sprintf("%d records up to LSN %d, %d behind it dropped", len(found.accepted), next-1, a.recovery.Discarded), nil
}

// compareRecords orders by LSN; of several records with the same one, that
// which counts comes first: a void, then one appended again, then one on a
// device in service.
func (a *Array) compareRecords(x, y *scannedRecord) int {
	rank := func(r *scannedRecord) int {
		n := 0
		if !a.devs()[r.h.Device].writable.Load() {
			n = 1
		}
		switch {
		case r.h.Flags&format.FlagVoid != 0:
			if planted(ruleVoidWins) {
				return n + 6
			}
			return n
		case r.h.Flags&format.FlagAgain != 0:
			return n + 2
		}
		return n + 4
	}
	if x.h.FirstLSN != y.h.FirstLSN {
		if x.h.FirstLSN < y.h.FirstLSN {
			return -1
		}
		return 1
	}
	return rank(x) - rank(y)
}

func hasIntact(rest []*scannedRecord, lsn uint64) bool {
	for _, r := range rest {
		if r.h.FirstLSN != lsn {
			return false
		}
		if r.intact {
			return true
		}
	}
	return false
}

// otherCopy finds the copy of a record that counts besides it, among those that
// follow on it: on another device, and as good.
func otherCopy(rest []*scannedRecord, r *scannedRecord) *scannedRecord {
	for _, o := range rest {
		if o.h.FirstLSN != r.h.FirstLSN {
			break
		}
		if o.h.Device != r.h.Device && o.h.LSNs == r.h.LSNs && o.h.Flags&format.FlagTwo != 0 && o.intact == r.intact {
			return o
		}
	}
	return nil
}

func (f *scanned) accept(r *scannedRecord) {
	f.accepted = append(f.accepted, r)
	f.use(r)
	if r.second != nil {
		f.use(r.second)
	}
}
