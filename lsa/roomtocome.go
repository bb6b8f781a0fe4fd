package lsa

import "fmt"

// roomToCome sees to it that somebody makes room, and fails if nobody can.
func (a *Array) roomToCome(b *batch) error {
	if a.awaitRescue() {
		return nil
	}
	if err := a.devicesToCome(b); err != nil {
		return err
	}
	kept := a.keptForRescue()
	unused, preparing, collectable, emptied, canMove, writable, busy := 0, false, 0, 0, false, false, false
	for _, d := range a.devs() {
		if d == nil || !d.takesWrites() {
			continue
		}
		writable = true
		unused += max(0, d.available()-kept)
		preparing = preparing || d.preparable() > 0 && a.wantsPrepared(d)
		collectable += d.collectable()
		emptied += d.emptied()
		busy = busy || d.busy.Load() > 0 // what it empties is room soon
		canMove = canMove || a.canMoveOn(d)
	}
	// Collecting makes room only if there is some to begin with, and a
	// collection cannot wait for itself.
	if !canMove || a.append.cannotMove || b.origin == originMoved {
		collectable = emptied
	}
	switch {
	case !writable:
		return fmt.Errorf("write: %w: no device takes writes", ErrFailed)
	case preparing && (b.urgent || unused > a.reserved()):
		kick(a.work.prepare)
		return nil
	case unused > a.reserved() || collectable > 0 || busy && b.origin != originMoved && !a.append.cannotMove:
		kick(a.work.checkpoint)
		kick(a.work.tidy)
		if a.opts.Events != nil {
			a.opts.Events.SpaceWanted()
		}
		return nil
	}
	return fmt.Errorf("write: %w: nothing is left to collect", ErrNoSpace)
}

// canMoveOn says whether a collection could append to the device. append.mu is held.
func (a *Array) canMoveOn(d *device) bool {
	for class := range d.streams {
		var need room
		need[class] = d.segSectors() / 4
		if a.hasRoom(d, &need, true) {
			return true
		}
	}
	return false
}

// hostFull says whether the file system below a device had no room for a
// segment the last time one was asked for. append.mu is held.
func (a *Array) hostFull() bool {
	for _, d := range a.devs() {
		if d != nil && d.hostFull {
			return true
		}
	}
	return false
}

// emptiedToCome says whether segments that have their room below become
// available without a collection, with the next checkpoints. append.mu is held.
func (a *Array) emptiedToCome() bool {
	for _, d := range a.devs() {
		if d != nil && d.takesWrites() && (d.warm > 0 || d.emptied() > 0) {
			return true
		}
	}
	return false
}

// noteCannotMove: a collection had no room for what it moves, so no writer need
// wait for one until a segment becomes available. append.mu is held.
func (a *Array) noteCannotMove(b *batch) {
	if b.origin == originMoved && !a.append.cannotMove {
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

// emptied counts the segments that the next checkpoint frees. append.mu is held.
func (d *device) emptied() int {
	n := 0
	for i := range d.segs {
		if s := &d.segs[i]; s.state == segSealed && s.live.Load() == 0 {
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
		if live := s.live.Load(); s.state == segSealed && live < most && (live == 0 || !s.damaged) {
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
