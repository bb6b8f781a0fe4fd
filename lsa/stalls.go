package lsa

import (
	"sync/atomic"
	"time"
)

// WaitCause is why a writer had to wait inside the array, other than for the devices.
type WaitCause uint8

const (
	// WaitRoom: no segment was available, until a collection and a checkpoint made one so.
	WaitRoom WaitCause = iota
	// WaitPace: few segments were unused, and writers are slowed so that collection stays ahead.
	WaitPace
	// WaitMap: the map had more dirty pages than a checkpoint keeps up with.
	WaitMap
	waitCauses
)

// String is the name used in metrics.
func (c WaitCause) String() string { return [...]string{"room", "pace", "map"}[c] }

// WaitBounds are the upper bounds of the buckets in which waits are counted; longer ones have one more bucket.
var WaitBounds = [...]time.Duration{
	100 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	200 * time.Millisecond, time.Second, 5 * time.Second,
}

// Waits are the waits of writers for one cause since the array was opened.
type Waits struct {
	Cause WaitCause
	Count [len(WaitBounds) + 1]uint64 // by bucket
	Time  time.Duration
}

// waits counts them.
type waits [waitCauses]struct {
	count [len(WaitBounds) + 1]atomic.Uint64
	nanos atomic.Int64
}

// note counts a wait that began at since.
func (w *waits) note(c WaitCause, since time.Time) {
	took, i := time.Since(since), 0
	for i < len(WaitBounds) && took > WaitBounds[i] {
		i++
	}
	w[c].count[i].Add(1)
	w[c].nanos.Add(int64(took))
}

// Waits returns the waits of writers, by cause.
func (a *Array) Waits() []Waits {
	all := make([]Waits, waitCauses)
	for c := range all {
		all[c].Cause = WaitCause(c)
		all[c].Time = time.Duration(a.waits[c].nanos.Load())
		for i := range all[c].Count {
			all[c].Count[i] = a.waits[c].count[i].Load()
		}
	}
	return all
}
