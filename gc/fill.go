package gc

import (
	"math"
	"time"
)

// fill measures how fast users fill a device, in segments per second, net of what trims and overwriting free
// and of what collection gains: two exponentially weighted averages, one slow, to set the period by, one
// fast, to notice a burst.
type fill struct {
	started bool
	last    time.Time
	level   float64 // segments filled since the start
	gained  float64 // segments gained by collection since the start
	offset  float64
	slow    average
	fast    average
}

// The time constants of the averages, in periods. A period sees a handful of segments filled, so the slow one
// needs many periods to be steady: a period that wavers makes turns of unequal length.
const (
	slowPeriods = 16
	fastPeriods = 0.5
)

// average is a rate whose past fades with the time constant tau.
type average struct{ sum, secs float64 }

func (a *average) add(delta, dt, tau float64) {
	k := math.Exp(-dt / tau)
	a.sum = a.sum*k + delta
	a.secs = a.secs*k + tau*(1-k)
}

func (a *average) rate() float64 {
	if a.secs <= 0 {
		return 0
	}
	return max(0, a.sum/a.secs)
}

// observe takes in the count of available segments.
func (f *fill) observe(now time.Time, available int, period time.Duration) {
	if !f.started {
		f.started, f.last, f.offset = true, now, f.gained-float64(available)
		return
	}
	dt := now.Sub(f.last).Seconds()
	if dt <= 0 {
		return
	}
	level := f.gained - float64(available) - f.offset
	t := period.Seconds()
	f.slow.add(level-f.level, dt, slowPeriods*t)
	f.fast.add(level-f.level, dt, fastPeriods*t)
	f.level, f.last = level, now
}

// gain tells it of a collected segment whose live blocks, a share of the whole, went elsewhere.
func (f *fill) gain(segments float64) { f.gained += segments }

// burst lets the slow average take the fast one into account as if it had lasted for secs.
func (f *fill) burst(secs float64) {
	f.slow.sum += f.fast.rate() * secs
	f.slow.secs += secs
}

// believe makes the slow average forget all but the fast one.
func (f *fill) believe(secs float64) {
	f.slow = average{sum: f.fast.rate() * secs, secs: secs}
}

// known reports that enough was filled to speak of a rate.
func (f *fill) known() bool { return f.level >= 2 || f.slow.sum >= 2 }
