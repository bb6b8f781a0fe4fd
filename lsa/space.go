package lsa

import (
	"fmt"
	"time"
)

// How room is kept. reserve segments, or one more than there are devices that
// may collect at once, are for what makes room or keeps the array alive:
// collection, trims, administration. fullShare of what is left is
// the most that may hold live blocks, so that there is always garbage to
// collect; lowShare of unused segments is where writers begin to be slowed: no
// more than what a collector keeps unused when all is well.
const (
	reserve      = 3
	fullShare    = 0.95
	lowShare     = 0.0075
	nothingToWin = 0.97 // segments with more live blocks are not worth collecting
	slowestMiB   = 40 * time.Millisecond
	mixAfter     = 2 * time.Second  // of a collection, before what it moves is put together
	patience     = 10 * time.Second // of a writer, while no segment becomes available at all
)

// capacity returns how many blocks the array may hold.
func (a *Array) capacity() int64 {
	var blocks int64
	segments := 0
	for _, d := range a.devs() {
		if d != nil && d.takesWrites() {
			blocks += int64(len(d.segs)) * d.segBlocks()
			segments += len(d.segs)
		}
	}
	if segments == 0 {
		return 0
	}
	kept := a.reserved()
	if a.twoCopies.Load() { // and one more that a writer may take
		kept = max(kept, (deviceReserve+1)*len(a.devs()))
	}
	if n := a.writableDevices(); n > 1 {
		kept += rescueReserve * n
	}
	spare := int64(kept+a.classes()*a.writableDevices()) * (blocks / int64(segments))
	return max(0, int64(float64(blocks-spare)*fullShare))
}

// reserved is how many prepared segments writers leave. append.mu is held, or
// the array is being opened.
func (a *Array) reserved() int { return max(reserve, a.writableDevices()+1) }

// waitForRoom returns the device that the batch goes to, or both. append.mu is held.
func (a *Array) waitForRoom(b *batch) (to [2]*device, err error) {
	if err := a.admit(b); err != nil {
		return to, err
	}
	var waited time.Time // since when it waits for room
	mix := false
	for begin := time.Now(); ; {
		if a.append.closed {
			return to, fmt.Errorf("write: array %w", ErrClosed)
		}
		if err := a.failed(); err != nil {
			return to, err
		}
		queued := a.append.tail - a.commit.head.Load()
		if queued < queueLength {
			a.append.unsynced = false
			mix = mix || !waited.IsZero() && time.Since(waited) > mixAfter
			if to = a.pick(b, mix); to[0] != nil {
				if !waited.IsZero() && b.origin == originUser {
					a.waits.note(WaitRoom, waited)
				}
				return to, nil
			}
			if waited.IsZero() {
				waited = time.Now()
			}
			if a.append.unsynced {
				kick(a.work.sync)
				if !a.hostFull() {
					begin = time.Now()
				}
			} else if err := a.roomToCome(b); err != nil {
				if !mix && b.prefer != nil {
					mix = true
					continue
				}
				a.noteCannotMove(b)
				return to, err
			}
			// Where the file system below is full, what one device gives back
			// another may take: that is no progress. Once one writer has waited in
			// vain, the others need not, until there is room for a segment or a
			// trim has emptied one.
			full := a.hostFull()
			if a.append.roomAt.After(begin) && !full {
				begin = a.append.roomAt
			} else if time.Since(begin) > patience || full && a.append.gaveUp && !a.emptiedToCome() {
				a.append.gaveUp = full
				a.noteCannotMove(b)
				return to, fmt.Errorf("write: %w: no room was made for %v", ErrNoSpace, patience)
			}
		}
		a.append.full.Store(true)
		a.append.space.Wait()
	}
}

// admit refuses what would fill the array beyond what collecting can handle.
func (a *Array) admit(b *batch) error {
	if a.ballast.full.Load() && !b.urgent {
		return fmt.Errorf("write: %w: the file system of the metadata store is full", ErrNoSpace)
	}
	if b.add > 0 && a.used.Load()+a.pending.Load()+b.add > a.limit.Load() {
		return fmt.Errorf("write: %w: %d of %d blocks in use", ErrNoSpace, a.used.Load(), a.limit.Load())
	}
	return nil
}

// pickDevice returns the device whose turn it is, if it has the room: the same
// for a stretch, then the next.
func (a *Array) pickDevice(b *batch, need *room) *device {
	l := &a.append
	if d := b.prefer; d != nil && d.takesWrites() && a.takes(d, b, need) {
		return d
	}
	if d := l.current; d != nil && l.stretch > 0 && d.busy.Load() == 0 && b.mayUse(d) && d.takesWrites() && a.takes(d, b, need) {
		return d
	}
	var best *device
	for _, d := range a.devs() {
		if d == nil || !d.takesWrites() || !b.mayUse(d) || !a.takes(d, b, need) {
			continue
		}
		if best == nil || a.spares(d) && !a.spares(best) || a.spares(d) == a.spares(best) && a.sooner(d, best) {
			best = d
		}
	}
	if best != nil && b.origin == originUser {
		l.current, l.stretch = best, a.stretchBytes()
		l.clock = max(l.clock, best.turn)
		best.turn = l.clock + 1/best.freeBlocks()
	}
	return best
}

// sooner orders the devices that take user data: those that collect last, the
// others in turn. A device with twice the free space has twice as many turns.
// Going by the unused segments instead would send everything to the device
// that has just collected, and bring the turns of all of them together.
func (a *Array) sooner(d, than *device) bool {
	if idle := d.busy.Load() == 0; idle != (than.busy.Load() == 0) {
		return idle
	}
	return max(d.turn, a.append.clock) < max(than.turn, a.append.clock)
}

// freeBlocks is the room that is not live, collected or not; at least 1.
func (d *device) freeBlocks() float64 {
	return float64(max(1, int64(len(d.segs))*d.segBlocks()-d.live.Load()))
}

// hasRoom says whether so much can go to the device now. What there is of each
// class fits into what is left of its open segment and one more.
func (a *Array) hasRoom(d *device, need *room, urgent bool) bool {
	more := 0
	for class, sectors := range need {
		if s := &d.streams[class]; sectors > 0 && !(s.open && d.segSectors()-s.next >= sectors) {
			more++
		}
	}
	return more == 0 || more <= a.openable(d, urgent)
}

// openable is how many of the device's segments may be opened now. append.mu is held.
func (a *Array) openable(d *device, urgent bool) int {
	kept := a.keptForRescue()
	n := len(d.prepared) - kept
	if !urgent {
		if !a.spares(d) {
			return 0
		}
		n = min(n, a.preparedSegments()-a.reserved()-kept*a.writableDevices())
	}
	return max(0, n)
}

func (a *Array) preparedSegments() int {
	n := 0
	for _, d := range a.devs() {
		if d != nil && d.takesWrites() {
			n += len(d.prepared)
		}
	}
	return n
}
