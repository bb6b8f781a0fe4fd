package gc

import (
	"hash/fnv"
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
	last      Reason // of the collection before
	asked     bool   // a manual collection was asked for
	busy      bool   // a victim is being collected; its answer is outstanding
	victim    SegmentInfo
	run       run
	share     float64       // of the device's time that collection takes
	owed      time.Duration // pause not yet taken
	fill      fill
	kept      map[SegmentID]leftover // what the last collection of each segment left in it
	retry     time.Time              // no victim was found: not before then
	totals    Totals
	recent    []Run // newest last
	lastError string
	level     int // available when the last collection ended, or the timer fired
	// workPerSegment is the measured device time, in ns, to gain one segment.
	workPerSegment float64
	timePerBlock   float64 // time, in ns, to relocate one block, pauses and waiting for others included
}

// retryAfter is how long a device without a victim waits before it looks again.
const retryAfter = 100 * time.Millisecond

// recentRuns is how many collections a status shows.
const recentRuns = 8

func newDevice(t Target, policy string) (*Device, error) {
	h := fnv.New64a()
	h.Write([]byte(t.Name()))
	p, err := NewPolicy(policy, h.Sum64())
	if err != nil {
		return nil, err
	}
	return &Device{target: t, policy: p, wake: make(chan struct{}, 1), kept: map[SegmentID]leftover{}, share: relaxedShare}, nil
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

// worthReleasing says whether pending segments are to be made unused now. A checkpoint costs the same for one as for many,
// and clients notice it: so not before there are many of them, unless few others are left to write to.
func worthReleasing(c Counts, low int) bool {
	if c.Pending == 0 || c.Unused > low {
		return false
	}
	return c.Unused <= low/2 || c.Pending >= (low+1)/2
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
	act := Action{Release: worthReleasing(c, d.limits.Low)}
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
	if why == Forced && d.last == Forced { // not an accident: the period is too long
		d.fill.believe(d.sched.period.Seconds())
	}
	d.last = why
	d.reason, d.asked = why, false
	d.run = run{began: now, turn: now}
	d.owed = 0
	d.collecting.Store(true)
}
