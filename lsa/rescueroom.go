package lsa

// Records that a device failed to sync are saved on another, and no checkpoint
// makes room before they are. So room for them is kept: rescueReserve segments
// of each device that nothing else may take, and where unused segments are few,
// what is appended to a device and not synced stays well within what the
// others have unused: writers wait for a sync.
const (
	rescueReserve = 2
	rescueShare   = 4 // of what is unused; records do not fit together without gaps
)

// keptForRescue is how many segments of each device are kept. A single device
// has nowhere to save anything, but has what another left it to save.
func (a *Array) keptForRescue() int {
	if a.writableDevices() < 2 && !a.rescueAhead() && !a.leavesUnsynced() {
		return 0
	}
	return rescueReserve
}

// rescueAhead says whether a device failed of which records are not saved yet.
// Whoever else took the room for them would leave an array in which nothing makes
// room any more, and which does not open after a crash.
func (a *Array) rescueAhead() bool {
	for _, d := range a.devs() {
		if d != nil && !d.writable.Load() && d.appended.Load() != d.synced.Load() {
			return true
		}
	}
	return false
}

// leavesUnsynced says whether a device is on its way out, and could still fail with
// records that no sync covers.
func (a *Array) leavesUnsynced() bool {
	for _, d := range a.devs() {
		if d != nil && d.draining.Load() && d.writable.Load() && d.unsyncedSectors.Load() > 0 {
			return true
		}
	}
	return false
}

// awaitRescue has writers that find no room wait until the records of a failed
// device are saved, if there is somewhere to save them. append.mu is held.
func (a *Array) awaitRescue() bool {
	if !a.rescueAhead() || a.writableDevices() == 0 {
		return false
	}
	if !a.append.awaitsRescue { // and else at tidy's next turn: a rescue that finds no room wakes writers
		a.append.awaitsRescue = true
		kick(a.work.tidy)
	}
	return true
}

// endAwait wakes them.
func (a *Array) endAwait() {
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	if a.append.awaitsRescue && !a.rescueAhead() {
		a.append.awaitsRescue = false
		a.append.space.Broadcast()
	}
}

// takes says whether the device takes the batch, which needs so much, now.
// append.mu is held.
func (a *Array) takes(d *device, b *batch, need *room) bool {
	if !a.hasRoom(d, need, b.urgent) {
		return false
	}
	if len(d.prepared) <= rescueReserve && a.rescueAhead() {
		return false // the rescue has begun with what is kept, and needs the rest of it, too
	}
	if !a.rescuable(d, need.total()) {
		a.append.unsynced = true
		return false
	}
	return true
}

// rescuable says whether what no sync of the device covers, and so many sectors
// more, could be saved on the others. append.mu is held.
func (a *Array) rescuable(d *device, need uint32) bool {
	unsynced := d.unsyncedSectors.Load()
	if unsynced == 0 {
		return true
	}
	others, unused := 0, int64(0)
	for _, o := range a.devs() {
		if o != nil && o != d && o.takesWrites() {
			others++
			unused += int64(o.available())
		}
	}
	return others == 0 || unsynced+int64(need) <= unused*int64(d.segSectors())/rescueShare
}

// streamFor returns the stream that takes a record which has to be saved: that
// of its class or, before a segment is opened that may be the last, any other
// with the room. It is nil if none is. append.mu is held.
func (d *device) streamFor(class uint8, sectors uint32) *stream {
	own := &d.streams[class]
	if own.open && d.segSectors()-own.next >= sectors {
		return own
	}
	for c := range d.streams {
		if s := &d.streams[c]; s.open && d.segSectors()-s.next >= sectors {
			return s
		}
	}
	if len(d.prepared) == 0 {
		return nil
	}
	return own
}

// syncLoop syncs for writers that wait in waitForRoom.
func (a *Array) syncLoop() {
	for {
		select {
		case <-a.work.ctx.Done():
			return
		case <-a.work.sync:
		}
		for {
			if ran, _ := a.syncRound(); ran { // who flushes sees a failure
				break
			}
		}
		a.wakeWriters()
	}
}
