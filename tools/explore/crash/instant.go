package crash

import (
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// instant is one moment at which a crash happens, and what it leaves.
type instant struct {
	when  int64           // of Run.clock: what was acknowledged before may count
	power bool            // power was lost, now or in a crash before without a life between
	mems  []*blockdev.Mem // by slot; nil where no device is
	fs    *vfs.MemFS
	boot  format.UUID
	what  string // the operation that was under way
	depth int    // 1: crash of a life, 2: of its recovery, 3: of the recovery from that

	checkpointing, collecting bool // under way
	counts                    bool // more than one device, and a checkpoint or collection under way
	faulted                   bool // a device had failed
	damaged                   bool // the medium was damaged after the crash
	oneBad                    bool // that of one device only, which volumes with two copies can do without

	closed   bool  // it is no crash: the array was closed in order
	spare    int32 // see Run.spare
	adding   int   // slot of a device that was being added; -1: none
	removing int   // slot of the device that was being removed; -1: none
	troubled bool  // blocks with one copy may be lost
	// lost is the slot of the device that is not there any more when the array
	// is opened, -1 if all are; lostMem is what was on it.
	lost    int
	lostMem *blockdev.Mem
	trail   []trailStep // up to the crash, that of the crashes before in front
}

func (i *instant) String() string {
	kind := "kill -9"
	switch {
	case i.closed:
		kind = "the end, in order"
	case i.power:
		kind = "power loss"
	}
	if i.damaged {
		kind += " and damage"
	}
	if i.lost >= 0 {
		kind += fmt.Sprintf(" and loss of device %d", i.lost)
	}
	return fmt.Sprintf("%s, depth %d, at %d, during %s (checkpoint %v, collection %v, faulted %v, spare %d, removing %d)",
		kind, i.depth, i.when, i.what, i.checkpointing, i.collecting, i.faulted, i.spare, i.removing)
}

// mayFail says whether reads of the volume may fail.
func (i *instant) mayFail(v *volume) bool {
	if i.damaged {
		return v.copies == 1 || !i.oneBad
	}
	return v.copies == 1 && i.troubled
}

// now is the present, as far as the oracle is concerned.
func (r *Run) now(what string) *instant {
	return &instant{when: r.clock.Add(1), what: what, adding: -1, removing: -1, lost: -1, spare: noneToSpare, troubled: r.troubled.Load()}
}

// copy makes what a crash now could leave. The site's lock is held.
func (s *site) copy(what string, power bool) *instant {
	i := s.r.now(what)
	i.power, i.boot, i.depth, i.adding, i.removing = power, s.boot, s.depth, s.adding, s.removing
	percent := 100
	crash := blockdev.KillAll
	if power {
		percent, crash = []int{0, 50, 100}[s.rng.IntN(3)], blockdev.CrashAll
		i.boot = randomUUID(s.rng)
	}
	var present []*blockdev.Mem
	var slots []int
	for slot, m := range s.mems {
		if m != nil && slot != s.joining {
			present, slots = append(present, m), append(slots, slot)
		}
	}
	s.trail.add(trailStep{what: "a copy, during " + what})
	clones := crash(s.rng, present, func() {
		i.trail = s.trail.soFar()
		i.when = s.r.clock.Add(1)
		i.spare = s.r.spare.Load()
		i.fs = s.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: s.rng})
	})
	i.mems = make([]*blockdev.Mem, len(s.mems))
	for n, slot := range slots {
		i.mems[slot] = clones[n]
	}
	i.faulted, i.troubled = s.r.faulted.Load(), s.r.troubled.Load()
	if b := s.base; b != nil { // nothing was acknowledged since
		i.when, i.power, i.counts, i.closed = b.when, b.power || power, b.counts, b.closed
		i.checkpointing, i.collecting = b.checkpointing, b.collecting
		i.lost, i.lostMem, i.spare, i.removing = b.lost, b.lostMem, b.spare, b.removing
		i.troubled = b.troubled
		i.trail = slices.Concat(b.trail, i.trail)
		return i
	}
	i.checkpointing, i.collecting = s.r.checkpointing.Load() > 0, s.r.collecting.Load() > 0
	i.counts = len(present) > 1 && (i.checkpointing || i.collecting)
	return i
}
