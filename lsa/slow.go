package lsa

import "time"

// updatePressure works out how writers are slowed, in nanoseconds a MiB: not
// at all while lowShare of the segments is unused, then more and more.
// append.mu is held.
func (a *Array) updatePressure() {
	unused, total := 0, 0
	for _, d := range a.devs() {
		if d != nil && d.takesWrites() {
			unused += d.unused()
			total += len(d.segs)
		}
	}
	low := float64(total) * lowShare
	x := max(0, (low-float64(unused))/low)
	a.pressure.Store(int64(x * x * float64(slowestMiB)))
}

// slow makes a writer of so many bytes wait its share while room is short, and
// while a checkpoint does not keep up.
func (a *Array) slow(bytes int) {
	if p := a.pressure.Load(); p > 0 && bytes > 0 {
		a.pay(time.Duration(p * int64(bytes) >> 20))
	}
	if a.blocks.Pressure() < 1 && a.logBytes.Load() < a.opts.CheckpointBytes {
		return
	}
	kick(a.work.checkpoint)
	if !a.checkpointLate() {
		return
	}
	begin := time.Now()
	for i := 0; i < 1000 && a.checkpointLate() && a.storeStuck() == nil; i++ {
		time.Sleep(time.Millisecond)
	}
	a.waits.note(WaitMap, begin)
}

// mostLog bounds the log behind the last checkpoint, and with it how long a
// recovery takes, in sizes after which a checkpoint is due.
const mostLog = 3

// checkpointLate: the map has more dirty pages than a checkpoint may leave, or
// the log has grown too long meanwhile.
func (a *Array) checkpointLate() bool {
	return a.blocks.Pressure() >= 2 || a.logBytes.Load() >= mostLog*a.opts.CheckpointBytes
}

// shortestWait is what writers wait at once: a sleep may be a millisecond too
// long, so that shorter ones add up first.
const shortestWait = time.Millisecond

// pay has one writer wait for what it and those before it owe.
func (a *Array) pay(share time.Duration) {
	owed := a.owed.Add(int64(share))
	if owed < int64(shortestWait) || !a.owed.CompareAndSwap(owed, 0) {
		return
	}
	begin := time.Now()
	time.Sleep(time.Duration(owed))
	a.waits.note(WaitPace, begin)
}
