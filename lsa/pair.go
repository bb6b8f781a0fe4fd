package lsa

import (
	"fmt"

	"lsad/lsa/format"
)

// deviceReserve segments of each device are kept for collections where there
// are volumes with two copies: such blocks mostly move within their device.
const deviceReserve = 2

// mayUse says whether the batch may go to the device.
func (b *batch) mayUse(d *device) bool { return b.avoid>>d.slot&1 == 0 }

// spares says whether the device has prepared segments beyond those that are
// kept for its own collections. append.mu is held.
func (a *Array) spares(d *device) bool {
	return !a.twoCopies.Load() || len(d.prepared) > deviceReserve+a.keptForRescue()
}

// pickDevices returns where the batch goes, nothing if there is no room now.
// One that asks for two copies has to do with one where one device is all
// that takes writes, or that has room for what makes room. append.mu is held.
func (a *Array) pickDevices(b *batch, need *room) (to [2]*device) {
	if b.copies == 2 && a.writableDevices() > 1 {
		if to = a.pickPair(b, need); to[0] != nil || !b.urgent {
			return to
		}
	}
	to[0] = a.pickDevice(b, need)
	return to
}

// pickPair returns two devices: the same for a stretch, then the emptiest that
// are not being collected.
func (a *Array) pickPair(b *batch, need *room) (to [2]*device) {
	takes := func(d *device) bool {
		return d != nil && d.takesWrites() && b.mayUse(d) && a.takes(d, b, need)
	}
	l := &a.append
	if p := l.pair; l.stretch > 0 && takes(p[0]) && takes(p[1]) && p[0].busy.Load() == 0 && p[1].busy.Load() == 0 {
		return p
	}
	for _, d := range a.devs() {
		switch {
		case !takes(d):
		case to[0] == nil || emptier(d, to[0], b.firstClass()):
			to[0], to[1] = d, to[0]
		case to[1] == nil || emptier(d, to[1], b.firstClass()):
			to[1] = d
		}
	}
	if to[1] == nil {
		return [2]*device{}
	}
	if planted(ruleCopiesApart) {
		to[1] = to[0]
	}
	if b.origin == originUser {
		l.pair, l.stretch = to, a.stretchBytes()
	}
	return to
}

// emptier is better to a finer measure: the same pair must not be taken until
// one of its segments is full.
func emptier(d, than *device, class int) bool {
	if idle := d.busy.Load() == 0; idle != (than.busy.Load() == 0) {
		return idle
	}
	return d.restSectors(class) > than.restSectors(class)
}

// restSectors is what can be appended until collections have to make room.
func (d *device) restSectors(class int) int64 {
	n := int64(d.unused()) * int64(d.segSectors())
	if s := &d.streams[class]; s.open {
		n += int64(d.segSectors() - s.next)
	}
	return n
}

// devicesToCome fails if too few of the devices that the batch may go to can
// ever have room for it: the others' room does not help. append.mu is held.
func (a *Array) devicesToCome(b *batch) error {
	if !a.twoCopies.Load() {
		return nil
	}
	want, kept := 1, deviceReserve
	if b.urgent {
		kept = 0
	} else if b.copies == 2 {
		want = min(2, a.writableDevices())
	}
	n := 0
	for _, d := range a.devs() {
		if d == nil || !d.takesWrites() || !b.mayUse(d) {
			continue
		}
		unused := d.available() - a.keptForRescue()
		// A collection cannot wait for itself, and takes room on its device.
		// What is being collected is room soon.
		switch {
		case b.origin == originMoved:
			unused += d.emptied()
		case d.busy.Load() > 0 && !a.append.cannotMove:
			unused += max(1, d.toGain())
		case a.canMoveOn(d):
			unused += d.toGain()
		default:
			unused += d.emptied()
		}
		if unused > kept {
			n++
		}
	}
	switch {
	case n < want && want > 1:
		return fmt.Errorf("write: %w: two copies take room on two devices, and %d of them has any", ErrNoSpace, n)
	case n < want:
		return fmt.Errorf("write: %w: none of the devices that may take it has any room", ErrNoSpace)
	}
	return nil
}

// toGain is how many segments collecting the device could make unused, if only
// segments with a tenth of garbage are worth it. append.mu is held.
func (d *device) toGain() int {
	var garbage int64
	for i := range d.segs {
		s := &d.segs[i]
		if live := int64(s.live.Load()); s.state == segSealed && !s.damaged && live*10 < d.segBlocks()*9 {
			garbage += d.segBlocks() - live
		}
	}
	return int(garbage / d.segBlocks())
}

// appendTwo writes both copies of a record at once. A copy that cannot be
// written anywhere is given up: its device is out of service, and the record
// counts with the other alone. Without either it is voided.
func (a *Array) appendTwo(b *batch, r *record) error {
	b.copied.Add(1)
	go a.putSecond(b, r)
	errs := [2]error{a.put(b, r, &r.placement, &b.out[0])}
	b.copied.Wait()
	errs[1] = b.out[1].err
	if errs[0] != nil {
		errs[0] = a.putElsewhere(b, r, &r.placement, r.second.dev, errs[0])
	}
	if errs[1] != nil {
		errs[1] = a.putElsewhere(b, r, &r.second, r.dev, errs[1])
	}
	switch {
	case errs[0] != nil && errs[1] != nil:
		return a.void(b, r, errs[0])
	case errs[0] != nil:
		r.placement, r.second = r.second, placement{}
	case errs[1] != nil:
		r.second = placement{}
	}
	if r.flags&format.FlagAgain != 0 || r.second.dev == nil {
		r.setPlaces()
	}
	if r.second.dev == nil {
		a.counters.copiesMissed.Add(1)
		a.noteAlone(r.first + r.lsns - 1)
		kick(a.work.rebuild)
		a.appended(b, r, &r.placement, nil)
		return nil
	}
	a.appended(b, r, &r.placement, r.second.dev)
	a.appended(b, r, &r.second, r.dev)
	return nil
}

func (a *Array) putSecond(b *batch, r *record) {
	defer b.copied.Done()
	b.out[1].err = a.put(b, r, &r.second, &b.out[1])
}

// putElsewhere writes a copy whose append failed on another device that does
// not have the other copy.
func (a *Array) putElsewhere(b *batch, r *record, p *placement, other *device, err error) error {
	for range a.devs() {
		a.log.Error("append failed", "device", p.dev.dev.Name(), "lsn", r.first, "error", err)
		a.appendFailed(p.dev, p.seg, err)
		if !a.relocate(b, r, p, other) {
			return err
		}
		if err = a.put(b, r, p, &b.out[0]); err == nil {
			return nil
		}
	}
	a.appendFailed(p.dev, p.seg, err)
	return err
}
