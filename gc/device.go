package gc

import (
	"hash/fnv"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Device is the collector of one device: its timer, its trigger and the collection that is going on. It is a
// state machine; Collector.Step moves it.
type Device struct {
	target     Target
	policy     Policy
	collecting atomic.Bool
	wake       chan struct{} // holds one token while there is something new to look at
	stop       func()        // ends the goroutine of this device and waits for it; nil if there is none

	weight float64 // of this device in sharing out the period; Collector.mu

	mu     sync.Mutex
	limits Limits
	mode   Mode
	sched  schedule
	own    bool    // the schedule is this device's own, not the array's
	offset float64 // of its turn within the period
	slot   float64 // distance to the next device's turn, in periods
	due    float64 // its next turn, in periods
	armed  time.Time

	reason    Reason // of the collection going on, or None
	asked     bool   // a manual collection was asked for
	busy      bool   // a victim is being collected; its answer is outstanding
	victim    SegmentInfo
	run       run
	share     float64       // of the device's time that collection takes
	owed      time.Duration // pause not yet taken
	fill      fill
	kept      map[SegmentID]int // segments that could not be collected, by their live blocks then
	retry     time.Time         // no victim was found: not before then
	totals    Totals
	recent    []Run // newest last
	lastError string
	level     int // available when the last collection ended, or the timer fired
	// workPerSegment is the measured device time, in ns, to gain one segment.
	workPerSegment float64
	workPerBlock   float64 // and to relocate one block
}

// run is the collection going on.
type run struct {
	began    time.Time
	turn     time.Time // when the turn began that made it early
	worked   time.Duration
	segments int
	moved    int
	gained   float64
}

// retryAfter is how long a device without a victim waits before it looks again.
const retryAfter = 100 * time.Millisecond

// recentRuns is how many collections a status shows.
const recentRuns = 8

// earlyLiveMax is the share of live blocks above which an early or manual collection leaves a segment alone:
// it would rewrite sixteen blocks to gain one. A forced collection takes what there is.
const earlyLiveMax = 15.0 / 16

func newDevice(t Target, policy string) (*Device, error) {
	h := fnv.New64a()
	h.Write([]byte(t.Name()))
	p, err := NewPolicy(policy, h.Sum64())
	if err != nil {
		return nil, err
	}
	return &Device{target: t, policy: p, wake: make(chan struct{}, 1), kept: map[SegmentID]int{}, share: relaxedShare}, nil
}

// Name of the device.
func (d *Device) Name() string { return d.target.Name() }

// Collecting reports whether a collection is going on. It never blocks: write steering and the choice of a
// copy to read ask it for every request.
func (d *Device) Collecting() bool { return d.collecting.Load() }

// Changed tells the device that its counts changed: a segment was taken, or became unused. It never blocks.
func (d *Device) Changed() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Request asks for a collection now, whatever the trigger says (lsad gc run).
func (d *Device) Request() {
	d.mu.Lock()
	d.asked = true
	d.retry = time.Time{}
	d.mu.Unlock()
	d.Changed()
}

// Action is what a device has to do next.
type Action struct {
	// Collect says that Victim is to be collected, and Done called. If false there is nothing to do before
	// Until, or before the counts change.
	Collect bool
	Victim  SegmentInfo
	Until   time.Time
	// Release says to call Target.Release first.
	Release bool
}

// step looks at the counts and the timer, starts and ends collections, and says what to do next.
func (d *Device) step(now time.Time) Action {
	c := d.target.Count()
	d.mu.Lock()
	defer d.mu.Unlock()
	available := c.Unused + c.Pending
	d.fill.observe(now, available, d.sched.period)
	why := Decide(available, now.Sub(d.armed), d.timeThreshold(), d.limits)
	if d.asked && why == None {
		why = Manual
	}
	if d.fire(now) {
		d.level = available
	}
	act := Action{Release: c.Unused <= d.limits.Low && c.Pending > 0}
	if d.busy {
		act.Until = d.nextTurn(now)
		return act
	}
	if d.reason == None && why != None && !now.Before(d.retry) {
		d.begin(why, now)
	} else if d.reason == Forced && why == Early {
		d.reason, d.run.turn = Early, now // its turn has come meanwhile: go on to the alternative mark
	}
	if d.reason != None {
		victim, ok := d.choose(available)
		over := ok && d.turnOver(available, victim, now)
		if ok && !over {
			d.busy, d.victim = true, victim
			act.Collect, act.Victim = true, victim
			return act
		}
		if !over && !Ended(d.reason, available, d.limits) {
			d.retry = now.Add(retryAfter)
		}
		d.end(now)
		d.level = available
		act.Release = act.Release || c.Pending > 0
	}
	act.Until = d.nextTurn(now)
	if now.Before(d.retry) && d.retry.Before(act.Until) {
		act.Until = d.retry
	}
	return act
}

// timeThreshold is the time from arming to the device's turn, or zero if it has no timer. d.mu is held.
func (d *Device) timeThreshold() time.Duration {
	if d.mode != Timed {
		return 0
	}
	return max(1, d.sched.when(d.due).Sub(d.armed))
}

// fire re-arms a timer that matched, whether or not it collects. d.mu is held.
func (d *Device) fire(now time.Time) bool {
	if d.mode != Timed || now.Before(d.sched.when(d.due)) {
		return false
	}
	d.arm(now)
	return true
}

// arm sets the timer for the next turn. d.mu is held.
func (d *Device) arm(now time.Time) {
	d.armed = now
	d.due = after(max(d.sched.at(now), d.due), d.offset)
}

func (d *Device) nextTurn(now time.Time) time.Time {
	if d.mode != Timed {
		return now.Add(maxPeriod)
	}
	return d.sched.when(d.due)
}

func (d *Device) begin(why Reason, now time.Time) {
	d.reason, d.asked = why, false
	d.run = run{began: now, turn: now}
	d.owed = 0
	d.collecting.Store(true)
}

// lasting is how many times the fill of a period must be there for a turn to end before its work is done.
const lasting = 1.25

// turnOver says whether an early collection leaves the rest of its work to its next turn, because the victim
// would not be done before the next device's turn begins. What a turn has to do varies, and would otherwise run
// into the next one. It goes on where what is there would not last until its next turn. d.mu is held.
func (d *Device) turnOver(available int, victim SegmentInfo, now time.Time) bool {
	if d.reason != Early || d.run.segments == 0 || !d.fill.known() {
		return false
	}
	takes := d.workPerBlock * float64(victim.Live) / d.share
	end := d.run.turn.Add(time.Duration(d.slot * float64(d.sched.period)))
	needed := lasting * d.fill.slow.rate() * d.sched.period.Seconds()
	return now.Add(time.Duration(takes)).After(end) && float64(available-d.limits.Low) > needed
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
			if live, ok := d.kept[s.ID]; ok && live == s.Live {
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
		d.kept[d.victim.ID] = d.victim.Live
		d.totals.Errors++
		d.lastError = err.Error()
		d.run.gained -= float64(moved) / float64(d.victim.Capacity)
		d.fill.gain(-float64(moved) / float64(d.victim.Capacity))
		return
	}
	delete(d.kept, d.victim.ID)
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
	if d.run.moved > 0 {
		per := float64(d.run.worked) / float64(d.run.moved)
		if d.workPerBlock == 0 {
			d.workPerBlock = per
		}
		d.workPerBlock += (per - d.workPerBlock) / 4
	}
	took := now.Sub(d.run.began)
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

// wish is the period that this device would like, or zero if it has no say.
func (d *Device) wish(now time.Time) time.Duration {
	c := d.target.Count()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.own || d.mode != Timed || !d.fill.known() {
		return 0
	}
	want := math.MaxInt64 / 4.0
	if r := d.fill.slow.rate(); r > 0 {
		want = fillShare * float64(d.limits.AltHigh-d.limits.Low) / r * float64(time.Second)
	}
	if d.reason == None {
		if share := d.hurry(c.Unused+c.Pending, now); share < 1 {
			want = min(want, float64(d.sched.period)*share)
			d.fill.burst(d.sched.period)
		}
	}
	return time.Duration(min(want, float64(maxPeriod)))
}

// hurry notices a burst: a device that has used a third of its band more since its last collection than it should
// have by now, and that would reach its default low threshold before its turn. It gives the share of the period
// that would bring the turn in time, at least a half, or 1. d.mu is held.
func (d *Device) hurry(available int, now time.Time) float64 {
	band := float64(d.limits.AltHigh - d.limits.Low)
	left := float64(d.sched.when(d.due).Sub(now)) / float64(d.sched.period)
	if used := float64(d.level - available); used-band*fillShare*(1-left) < band/3 {
		return 1
	}
	room := float64(max(0, available-d.limits.Low))
	need := d.fill.fast.rate() * left * d.sched.period.Seconds()
	if need <= room {
		return 1
	}
	return max(0.5, room/need)
}

// follow takes over a changed period. The turn that is due stays due.
func (d *Device) follow(s schedule) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.own {
		d.sched = s
	}
}
