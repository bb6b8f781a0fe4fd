package gc

import (
	"math"
	"time"
)

// burstWeight is how many periods a burst counts for in the average that the period follows, times the share by
// which it wants its turn earlier: little if that helps, more if it goes on.
const burstWeight = 4

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
			d.fill.burst(burstWeight * (1 - share) * d.sched.period.Seconds())
		}
	}
	return time.Duration(min(want, float64(maxPeriod)))
}

// hurry notices a burst: a device that has used a third of its band more since its last collection than it should
// have by now, and that would reach its default low threshold before its turn. It gives the share of the period
// that would bring the turn in time, at least two thirds, or 1. d.mu is held.
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
	return max(2.0/3, room/need)
}

// follow takes over a changed period. The turn that is due stays due.
func (d *Device) follow(s schedule) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.own {
		d.sched = s
	}
}
