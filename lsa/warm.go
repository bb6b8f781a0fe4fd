package lsa

import "time"

// A segment that is freed keeps its room below, and its pages in the page
// cache, for a while: under load it is written again soon, and overwriting
// costs a third of allocating anew. What stays unused is given back.
const (
	warmSegments = 64 // of a device, at most
	warmFor      = 5 * time.Second
)

// freed makes an emptied segment unused.
func (a *Array) freed(d *device, seg uint32) error {
	a.append.mu.Lock()
	keep := (d.hostFull || d.warm < warmSegments) && !a.ballast.full.Load() && !planted(ruleReuseAfterCheckpoint)
	a.append.mu.Unlock()
	keep = keep && a.hasKept(d, seg)
	var err error
	if !keep {
		err = d.dev.Discard(d.offset(seg, 0), d.segBytes)
	}
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	s := &d.segs[seg]
	s.allocated, s.freedAt = keep, time.Now()
	if keep {
		d.warm++
	}
	d.setState(seg, segFree)
	d.free++
	a.updatePressure()
	return err
}

// hasKept says whether an emptied segment has its room below still. Of one that was
// written before the array was opened nobody knows: a loss of power undoes what was
// allocated and not synced, and a discard may have been under way. It is asked for
// again, which costs nothing where it is there.
func (a *Array) hasKept(d *device, seg uint32) bool {
	a.append.mu.Lock()
	known := d.segs[seg].allocated
	a.append.mu.Unlock()
	return known || d.dev.Allocate(d.offset(seg, 0), d.segBytes) == nil
}

// reused makes an emptied segment ready to be opened again. It keeps its room.
func (a *Array) reused(d *device, seg uint32) {
	kept := a.hasKept(d, seg)
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	if d.segs[seg].allocated = kept; kept {
		d.warm++
	}
	d.segs[seg].state = segReady
	d.ready = append(d.ready, seg)
	a.updatePressure()
}

// discardCold gives the room of segments back that have been free for long, and
// of those of which a start does not know whether they have any.
func (a *Array) discardCold(now time.Time) {
	for _, d := range a.devs() {
		if d == nil || !d.takesWrites() {
			continue
		}
		a.discard(d, a.coldSegments(d, now))
	}
}

// discard gives the room of segments back that are kept from use for that.
func (a *Array) discard(d *device, segs []uint32) {
	for i, seg := range segs {
		err := d.dev.Discard(d.offset(seg, 0), d.segBytes)
		a.append.mu.Lock()
		s := &d.segs[seg]
		if s.allocated {
			d.warm--
		}
		s.allocated, s.stale, s.discarding = false, false, false
		a.append.mu.Unlock()
		if err != nil {
			a.log.Warn("discard failed", "device", d.dev.Name(), "segment", seg, "error", err)
			a.leaveCold(d, segs[i+1:])
			return
		}
	}
}

// discardStale gives back the room of all unused segments of which nobody knows
// whether they have any, and of mine, which is being prepared on the device. They
// may have all there is: after a start with a full file system below no segment
// could be allocated before, and none would be ever again. It says whether
// there were any.
func (a *Array) discardStale(on *device, mine uint32) bool {
	found := false
	for _, d := range a.devs() {
		if d == nil || !d.takesWrites() {
			continue
		}
		stale := a.staleSegments(d)
		if d == on {
			stale = append(stale, a.ifStale(d, mine)...)
		}
		found = found || len(stale) > 0
		a.discard(d, stale)
	}
	return found
}

// ifStale returns a segment that nobody else can choose, if its room is not counted on.
func (a *Array) ifStale(d *device, seg uint32) []uint32 {
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	if d.segs[seg].stale {
		return []uint32{seg}
	}
	return nil
}

// staleSegments returns those of a device that are free or ready, and keeps
// others from using them. A checkpoint that makes a free one ready meanwhile
// leaves it in the list of the ready ones, where it waits.
func (a *Array) staleSegments(d *device) []uint32 {
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	var stale []uint32
	pick := func(seg uint32) {
		if s := &d.segs[seg]; s.stale && !s.discarding {
			s.discarding = true
			stale = append(stale, seg)
		}
	}
	for i := range d.segs {
		if d.segs[i].state == segFree {
			pick(uint32(i))
		}
	}
	for _, seg := range d.ready {
		pick(seg)
	}
	return stale
}

// leaveCold lets segments be used that were to be discarded and are not.
func (a *Array) leaveCold(d *device, segs []uint32) {
	a.append.mu.Lock()
	for _, seg := range segs {
		d.segs[seg].discarding = false
	}
	a.append.mu.Unlock()
}

// coldSegments returns segments to discard, and keeps others from using them.
// No checkpoint is under way while it picks them: one that has chosen a segment
// to be made ready makes it so whatever happened to it meanwhile.
func (a *Array) coldSegments(d *device, now time.Time) (cold []uint32) {
	a.checkpoint.mu.Lock()
	defer a.checkpoint.mu.Unlock()
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	if d.hostFull && !a.ballast.full.Load() {
		if d.warm <= a.window(d) {
			return nil // what is given back may go to others
		}
		// There is more than is soon used: others may be waiting for it.
		defer func() { d.hostFull = d.hostFull && len(cold) == 0 }()
	}
	for i := range d.segs {
		s := &d.segs[i]
		if s.state == segFree && !s.discarding && (s.stale || s.allocated && now.Sub(s.freedAt) > warmFor) {
			s.discarding = true
			cold = append(cold, uint32(i))
		}
	}
	return cold
}
