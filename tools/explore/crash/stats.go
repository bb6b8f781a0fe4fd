package crash

import (
	"fmt"
	"sync"
)

// Stats counts the states that were checked. A state counts, in the sense of
// the promise to check so many, if its array had more than one device and a
// checkpoint or a collection that the workload had asked for was under way.
type Stats struct {
	mu sync.Mutex
	Totals
}

// Totals of Stats.
type Totals struct {
	States        int64 `json:"states"`  // all that were checked
	Counted       int64 `json:"counted"` // those that count
	Runs          int64 `json:"runs"`
	PowerLoss     int64 `json:"power_loss"`
	Kill          int64 `json:"kill"`
	InCheckpoint  int64 `json:"during_checkpoint"`
	InCollection  int64 `json:"during_collection"`
	InRecovery    int64 `json:"during_recovery"`
	ThirdCrash    int64 `json:"during_recovery_from_that"`
	Damaged       int64 `json:"with_a_damaged_medium"`
	DeviceFailed  int64 `json:"with_a_failed_device"`
	FlushesSeen   int64 `json:"flushes"`
	Acknowledged  int64 `json:"acknowledged_changes"`
	Checkpoints   int64 `json:"checkpoints"`
	Collections   int64 `json:"collections"`
	AdminChanges  int64 `json:"administrative_changes"`
	RefusedNoRoom int64 `json:"refused_for_want_of_room"`

	Lost         int64 `json:"with_a_lost_device"` // states
	Refused      int64 `json:"arrays_refused"`     // opened with a stale device, or without one
	TakenBack    int64 `json:"devices_taken_back"` // in time: the opening without them did not come far
	Deaths       int64 `json:"deaths"`             // of devices, under the open array
	DamagedAlive int64 `json:"damaged_while_open"` // segments
	Scrubs       int64 `json:"scrubs"`
	Wholes       int64 `json:"made_whole"` // all copies were there again
	Added        int64 `json:"devices_added"`
	Removed      int64 `json:"devices_removed"`
}

func (s *Stats) add(i *instant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.States++
	count := func(n *int64, is bool) {
		if is {
			*n++
		}
	}
	count(&s.Counted, i.counts)
	count(&s.PowerLoss, i.power)
	count(&s.Kill, !i.power)
	count(&s.InCheckpoint, i.checkpointing)
	count(&s.InCollection, i.collecting)
	count(&s.InRecovery, i.depth > 1)
	count(&s.ThirdCrash, i.depth > 2)
	count(&s.Damaged, i.damaged)
	count(&s.DeviceFailed, i.faulted)
	count(&s.Lost, i.lost >= 0)
}

func (s *Stats) change(fn func(t *Totals)) {
	s.mu.Lock()
	fn(&s.Totals)
	s.mu.Unlock()
}

// Totals returns the counts as they are now.
func (s *Stats) Get() Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Totals
}

func (t Totals) String() string {
	return fmt.Sprintf("%d states (%d count) of %d runs: %d after power loss, %d after kill -9; %d during a checkpoint, %d during a collection, %d during recovery, %d of these during recovery from a crash during recovery; %d with a failed device, %d with a damaged medium",
		t.States, t.Counted, t.Runs, t.PowerLoss, t.Kill, t.InCheckpoint, t.InCollection, t.InRecovery, t.ThirdCrash, t.DeviceFailed, t.Damaged) +
		fmt.Sprintf("; %d changes acknowledged, %d flushes, %d checkpoints, %d collections, %d administrative changes, %d refused for want of room",
			t.Acknowledged, t.FlushesSeen, t.Checkpoints, t.Collections, t.AdminChanges, t.RefusedNoRoom) + t.devices()
}

// devices says what happened to whole devices, if anything did.
func (t Totals) devices() string {
	if t.Deaths+t.Lost+t.Added+t.Removed+t.Scrubs == 0 {
		return ""
	}
	return fmt.Sprintf("; %d states without a device that was lost, %d arrays refused for a stale or missing device, %d times one taken back in time, %d deaths of devices, %d times damage under an open array, %d scrubs, %d times all copies restored, %d devices added, %d removed",
		t.Lost, t.Refused, t.TakenBack, t.Deaths, t.DamagedAlive, t.Scrubs, t.Wholes, t.Added, t.Removed)
}
