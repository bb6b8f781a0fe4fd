package gc

import (
	"math"
	"time"
)

// schedule turns time into turns. Time is counted in periods: a device with offset x has its turn whenever
// the count passes n+x. When the period changes the count goes on from where it is, only faster or slower,
// and so the distances between the devices' turns, in shares of a period, stay.
type schedule struct {
	base   time.Time
	turn   float64 // the count at base
	period time.Duration
}

// at is the count of periods at now.
func (s schedule) at(now time.Time) float64 {
	return s.turn + float64(now.Sub(s.base))/float64(s.period)
}

// when is the time at which the count reaches turn.
func (s schedule) when(turn float64) time.Time {
	return s.base.Add(time.Duration(math.Ceil((turn - s.turn) * float64(s.period))))
}

// with is s going on at another period from now.
func (s schedule) with(period time.Duration, now time.Time) schedule {
	return schedule{base: now, turn: s.at(now), period: period}
}

// after is the first turn of a device with the given offset after the count has passed turn.
func after(turn, offset float64) float64 {
	const rounding = 1e-6 // a turn that just came is not the next one
	return math.Floor(turn-offset+rounding) + 1 + offset
}

// Bounds of a period that follows the fill rate.
const (
	firstPeriod = 10 * time.Second // before anything was measured
	minPeriod   = 5 * time.Millisecond
	maxPeriod   = 10 * time.Minute
)

// Between two turns a device's fill should use this share of what lies between its alternative high and its
// default low threshold: the rest is for bursts, and for a turn that was missed.
const fillShare = 0.5

// Changes of the period smaller than this are not worth setting every timer anew.
const (
	shorten = 0.93
	lengthn = 1.12
)

// retune gives the period for the shortest wish among the devices: shorter at once, to stay ahead of the safety
// net, longer only by a quarter per period, so that a pause of the load does not throw away what was learnt.
func retune(old, wish, sinceChange time.Duration) time.Duration {
	wish = min(max(wish, minPeriod), maxPeriod)
	ratio := float64(wish) / float64(old)
	switch {
	case ratio < shorten:
		return max(wish, old*2/3)
	case ratio > lengthn && sinceChange >= old:
		return min(wish, old+old/4)
	}
	return old
}
