package lsa

import (
	"fmt"
	"time"

	"lsad/lsa/format"
)

// How room is kept. reserve segments are for what makes room or keeps the
// array alive: collection, trims, administration. fullShare of what is left is
// the most that may hold live blocks, so that there is always garbage to
// collect; lowShare of unused segments is where writers begin to be slowed.
const (
	reserve      = 3
	fullShare    = 0.95
	lowShare     = 0.02
	nothingToWin = 0.97 // segments with more live blocks are not worth collecting
	slowestMiB   = 40 * time.Millisecond
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
	kept := reserve
	if a.twoCopies.Load() { // and one more that a writer may take
		kept = max(reserve, (deviceReserve+1)*len(a.devs()))
	}
	kept += a.keptForRescue() * a.writableDevices()
	spare := int64(kept+classCount*a.writableDevices()) * (blocks / int64(segments))
	return max(0, int64(float64(blocks-spare)*fullShare))
}

// waitForRoom returns the device that the batch goes to, or both. append.mu is held.
func (a *Array) waitForRoom(b *batch) (to [2]*device, err error) {
	need := max(b.sectors(), 2*format.BlockSectors) // less than that left, and a segment is sealed
	if err := a.admit(b); err != nil {
		return to, err
	}
	var waited time.Time // since when it waits for room
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
			if to = a.pickDevices(b, need); to[0] != nil {
				if !waited.IsZero() && b.class == classUser {
					a.waits.note(WaitRoom, waited)
				}
				return to, nil
			}
			if waited.IsZero() {
				waited = time.Now()
			}
			if a.append.unsynced {
				kick(a.work.sync)
				begin = time.Now()
			} else if err := a.roomToCome(b); err != nil {
				a.noteCannotMove(b)
				return to, err
			}
			if a.append.roomAt.After(begin) {
				begin = a.append.roomAt
			} else if time.Since(begin) > patience {
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
func (a *Array) pickDevice(b *batch, need uint32) *device {
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
	if best != nil && b.class == classUser {
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

// hasRoom says whether so many sectors can go to the device now. They fit into
// what is left of the open segment and one more.
func (a *Array) hasRoom(d *device, class int, need uint32, urgent bool) bool {
	s := &d.streams[class]
	if s.open && d.segSectors()-s.next >= need {
		return true
	}
	kept := a.keptForRescue()
	if len(d.prepared) <= kept {
		return false
	}
	if urgent {
		return true
	}
	if !a.spares(d) {
		return false
	}
	return a.preparedSegments() > reserve+kept*a.writableDevices()
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

// roomToCome sees to it that somebody makes room, and fails if nobody can.
func (a *Array) roomToCome(b *batch) error {
	if err := a.devicesToCome(b); err != nil {
		return err
	}
	kept := a.keptForRescue()
	unused, preparing, collectable, emptied, canMove, writable := 0, false, 0, 0, false, false
	for _, d := range a.devs() {
		if d == nil || !d.takesWrites() {
			continue
		}
		writable = true
		unused += max(0, d.available()-kept)
		preparing = preparing || d.preparable() > 0 && a.wantsPrepared(d)
		collectable += d.collectable()
		emptied += d.emptied()
		canMove = canMove || a.hasRoom(d, classMoved, d.segSectors()/4, true)
	}
	// Collecting makes room only if there is some to begin with, and a
	// collection cannot wait for itself.
	if !canMove || a.append.cannotMove || b.class == classMoved {
		collectable = emptied
	}
	switch {
	case !writable:
		return fmt.Errorf("write: %w: no device takes writes", ErrFailed)
	case preparing && (b.urgent || unused > reserve):
		kick(a.work.prepare)
		return nil
	case unused > reserve || collectable > 0:
		kick(a.work.checkpoint)
		kick(a.work.tidy)
		if a.opts.Events != nil {
			a.opts.Events.SpaceWanted()
		}
		return nil
	}
	return fmt.Errorf("write: %w: nothing is left to collect", ErrNoSpace)
}

// noteCannotMove: a collection had no room for what it moves, so no writer need
// wait for one until a segment becomes available. append.mu is held.
func (a *Array) noteCannotMove(b *batch) {
	if b.class == classMoved && !a.append.cannotMove {
		a.append.cannotMove = true
		a.append.space.Broadcast()
	}
}

// available counts the unused segments; while the file system below is full
// only those that have their room still. append.mu is held.
func (d *device) available() int {
	if d.hostFull {
		return len(d.prepared) + d.warm
	}
	return d.unused()
}

// preparable counts the ready segments that can be prepared: all, or while
// the file system below is full those that still have their room.
func (d *device) preparable() int {
	if !d.hostFull {
		return len(d.ready)
	}
	n := 0
	for _, seg := range d.ready {
		if d.segs[seg].allocated {
			n++
		}
	}
	return n
}

// emptied counts the segments that the next checkpoint frees. append.mu is held.
func (d *device) emptied() int {
	n := 0
	for i := range d.segs {
		if s := &d.segs[i]; s.state == segSealed && !s.damaged && s.live.Load() == 0 {
			n++
		}
	}
	return n
}

// collectable counts the segments that would give room. append.mu is held.
func (d *device) collectable() int {
	n := 0
	most := uint32(float64(d.segBlocks()) * nothingToWin)
	for i := range d.segs {
		s := &d.segs[i]
		if s.state == segSealed && !s.damaged && s.live.Load() < most {
			n++
		}
	}
	return n
}

func (a *Array) wakeWriters() {
	a.append.mu.Lock()
	a.append.full.Store(false)
	a.append.space.Broadcast()
	a.append.mu.Unlock()
}

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
		begin := time.Now()
		time.Sleep(time.Duration(p * int64(bytes) >> 20))
		a.waits.note(WaitPace, begin)
	}
	if a.blocks.Pressure() < 1 && a.logBytes.Load() < a.opts.CheckpointBytes {
		return
	}
	kick(a.work.checkpoint)
	if !a.checkpointLate() {
		return
	}
	begin := time.Now()
	for i := 0; i < 1000 && a.checkpointLate(); i++ {
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

// window is how many segments of a device are ready or prepared between two
// checkpoints: what the log may take meanwhile, twice.
func (a *Array) window(d *device) int {
	return 8 + int(2*a.opts.CheckpointBytes/d.segBytes)/len(a.devs())
}

// wantsPrepared says whether another segment of the device is to be prepared:
// some are kept, and more where other devices have none to give, since writers
// wait until more than the reserve is prepared. append.mu is held.
func (a *Array) wantsPrepared(d *device) bool {
	kept := a.keptForRescue()
	return len(d.prepared) < 2+kept+(reserve+len(a.devs()))/len(a.devs()) || a.preparedSegments() <= reserve+kept*a.writableDevices()
}

// prepareSegments keeps some segments of each device allocated, so that
// opening one needs no I/O and writing to it cannot run out of room.
func (a *Array) prepareSegments() {
	for _, d := range a.devs() {
		if d == nil || !d.takesWrites() {
			continue
		}
		for {
			seg, ok := a.nextToPrepare(d)
			if !ok {
				break
			}
			err := a.allocate(d, seg)
			a.append.mu.Lock()
			d.preparing--
			if d.hostFull = err != nil; err != nil {
				d.ready = append(d.ready, seg)
			} else {
				d.segs[seg].allocated = true
				d.prepared = append(d.prepared, seg)
				a.append.roomAt, a.append.cannotMove = time.Now(), false
			}
			a.append.mu.Unlock()
			if err != nil {
				a.log.Warn("no room below the device", "device", d.dev.Name(), "error", err)
				break
			}
		}
	}
	a.wakeWriters()
}

func (a *Array) nextToPrepare(d *device) (uint32, bool) {
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	if !a.wantsPrepared(d) || len(d.ready) == 0 {
		return 0, false
	}
	pick := 0
	for i, seg := range d.ready { // one that has its room already, if any
		if d.segs[seg].allocated {
			pick = i
			break
		}
	}
	seg := d.ready[pick]
	d.ready = append(d.ready[:pick], d.ready[pick+1:]...)
	d.preparing++
	return seg, true
}

func (a *Array) allocate(d *device, seg uint32) error {
	a.append.mu.Lock()
	warm := d.segs[seg].allocated
	if warm {
		d.warm--
	}
	a.append.mu.Unlock()
	if warm {
		return nil
	}
	if a.ballast.low(d.segBytes) {
		return fmt.Errorf("%w: the room left is for the metadata store", ErrNoSpace)
	}
	return d.dev.Allocate(d.offset(seg, 0), d.segBytes)
}
