package lsa

import (
	"errors"
	"fmt"
	"time"
)

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
	return len(d.prepared) < 2+kept+(a.reserved()+len(a.devs()))/len(a.devs()) || a.preparedSegments() <= a.reserved()+kept*a.writableDevices()
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
			fresh, err := a.allocate(d, seg)
			a.append.mu.Lock()
			d.preparing--
			news := fresh && d.hostFull != (err != nil)
			if news {
				d.hostFull = err != nil
			}
			if fresh {
				d.storeLow = errors.Is(err, errStoreRoom)
			}
			if err != nil {
				d.ready = append(d.ready, seg)
			} else {
				d.segs[seg].allocated, d.segs[seg].stale = true, false
				d.prepared = append(d.prepared, seg)
				a.append.roomAt, a.append.cannotMove, a.append.gaveUp = time.Now(), false, false
			}
			a.append.mu.Unlock()
			switch {
			case news && errors.Is(err, errStoreRoom):
				a.log.Error("the file system of the metadata store is nearly full, and a device gets no further segment; writes fail when what is prepared is used up", "device", d.dev.Name(), "error", err)
			case news && err != nil:
				a.log.Error("the file system below a device has no room for its next segment; writes fail when what is prepared is used up", "device", d.dev.Name(), "error", err)
			case news:
				a.log.Info("there is room for a device's segments again", "device", d.dev.Name())
			}
			if err != nil {
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
	pick := -1
	for i, seg := range d.ready { // one that has its room already, if any
		s := &d.segs[seg]
		if s.discarding {
			continue
		}
		if s.allocated {
			pick = i
			break
		}
		if pick < 0 {
			pick = i
		}
	}
	if pick < 0 {
		return 0, false
	}
	seg := d.ready[pick]
	d.ready = append(d.ready[:pick], d.ready[pick+1:]...)
	d.preparing++
	return seg, true
}

// allocate gives a segment its room in the file system below; fresh says that
// it had none.
func (a *Array) allocate(d *device, seg uint32) (fresh bool, err error) {
	a.append.mu.Lock()
	warm := d.segs[seg].allocated
	if warm {
		d.warm--
	}
	a.append.mu.Unlock()
	if warm {
		return false, nil
	}
	err = a.takeRoomBelow(d, seg)
	if errors.Is(err, ErrNoSpace) && a.discardStale(d, seg) {
		err = a.takeRoomBelow(d, seg)
	}
	return true, err
}

// errStoreRoom: there may be room below the device, but there is next to none left for the metadata store, which writes
// to the segment would need.
var errStoreRoom = fmt.Errorf("%w: the room left is for the metadata store", ErrNoSpace)

func (a *Array) takeRoomBelow(d *device, seg uint32) error {
	if a.ballast.low(d.segBytes) {
		return errStoreRoom
	}
	return d.dev.Allocate(d.offset(seg, 0), d.segBytes)
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

// readyLow says whether too few segments of the device are ready, and others
// could be. While the file system below is full only those count that have
// their room: others that are ready are of no use to anybody. append.mu is held.
func (a *Array) readyLow(d *device) bool {
	n := d.preparable() + len(d.prepared)
	if d.hostFull {
		return n < a.window(d)/2 && d.warm > d.preparable()
	}
	return n < a.window(d)/2 && d.free > n
}
