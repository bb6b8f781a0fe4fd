package gc

import "time"

// run is the collection going on.
type run struct {
	began    time.Time
	turn     time.Time // when the turn began that made it early
	worked   time.Duration
	segments int
	moved    int
	gained   float64
}

// earlyLiveMax is the share of live blocks above which an early or manual collection leaves a segment alone:
// it would rewrite sixteen blocks to gain one. A forced collection takes what there is.
const earlyLiveMax = 15.0 / 16

const (
	// lasting is how many times the fill of a period must be there for a turn to end before its work is done.
	lasting = 1.25
	// caution is how much longer than the average a victim may take for its size.
	caution = 1.25
)

// turnOver says whether an early collection leaves the rest of its work to its next turn, because the victim
// would not be done before the next device's turn begins. What a turn has to do varies, and would otherwise run
// into the next one. It goes on where what is there would not last until its next turn. d.mu is held.
func (d *Device) turnOver(available int, victim SegmentInfo, now time.Time) bool {
	if d.reason != Early || d.run.segments == 0 || !d.fill.known() {
		return false
	}
	takes := caution * d.timePerBlock * float64(victim.Live)
	end := d.run.turn.Add(time.Duration(d.slot * float64(d.sched.period)))
	needed := lasting * d.fill.slow.rate() * d.sched.period.Seconds()
	return now.Add(time.Duration(takes)).After(end) && float64(available-d.limits.Low) > needed
}

// leftover is a segment that a collection did not empty: it is let alone until its live blocks, or its use, are others.
type leftover struct {
	opened uint64
	live   int
}

// choose picks the next victim, or reports that this collection is over. d.mu is held.
func (d *Device) choose(available int) (SegmentInfo, bool) {
	ended := Ended(d.reason, available, d.limits)
	liveMax := 1.0
	switch d.reason {
	case Early:
		liveMax = earlyLiveMax
	case Manual:
		liveMax = earlyLiveMax
		if ended { // beyond the mark only what is worth it
			liveMax, ended = 0.5, false
		}
	}
	if ended {
		return SegmentInfo{}, false
	}
	return d.policy.Pick(d.target.Now(), func(fn func(SegmentInfo) bool) {
		d.target.Candidates(func(s SegmentInfo) bool {
			if s.Live >= s.Capacity || float64(s.Live) > liveMax*float64(s.Capacity) {
				return true
			}
			if k, ok := d.kept[s.ID]; ok && k == (leftover{s.Opened, s.Live}) {
				return true
			}
			return fn(s)
		})
	})
}

// Done reports that the victim of the last Action was collected, or why it was not.
func (d *Device) Done(moved int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = false
	d.run.moved += moved
	d.totals.Moved += uint64(moved)
	if err != nil {
		d.kept[d.victim.ID] = leftover{d.victim.Opened, d.victim.Live}
		d.totals.Errors++
		d.lastError = err.Error()
		d.run.gained -= float64(moved) / float64(d.victim.Capacity)
		d.fill.gain(-float64(moved) / float64(d.victim.Capacity))
		return
	}
	// Mostly these were overwritten meanwhile and the segment is empty. One that is not, since its blocks cannot be
	// read, say, must not be the best victim again and again.
	d.kept[d.victim.ID] = leftover{d.victim.Opened, d.victim.Live - moved}
	gain := 1 - float64(moved)/float64(d.victim.Capacity)
	d.run.gained += gain
	d.fill.gain(gain)
	d.run.segments++
	d.totals.Segments++
}

// end closes the books of a collection. d.mu is held.
func (d *Device) end(now time.Time) {
	if d.run.gained > 0.5 {
		per := float64(d.run.worked) / d.run.gained
		if d.workPerSegment == 0 {
			d.workPerSegment = per
		}
		d.workPerSegment += (per - d.workPerSegment) / 4
	}
	took := now.Sub(d.run.began)
	if d.run.moved > 0 {
		per := float64(took) / float64(d.run.moved)
		if d.timePerBlock == 0 {
			d.timePerBlock = per
		}
		d.timePerBlock += (per - d.timePerBlock) / 4
	}
	if d.run.segments > 0 {
		d.totals.count(d.reason)
		d.totals.Time += took
		d.recent = append(d.recent, Run{d.reason, d.run.began, took, d.run.segments, d.run.moved})
		if len(d.recent) > recentRuns {
			d.recent = d.recent[1:]
		}
	}
	d.reason, d.run = None, run{}
	d.collecting.Store(false)
}
