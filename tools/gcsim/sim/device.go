package sim

import (
	"context"
	"errors"

	"lsad/gc"
)

type state uint8

const (
	unused state = iota
	open
	sealed
	pending // empty, waiting for a checkpoint
)

// segment is one segment of a simulated device.
type segment struct {
	live   int32
	fill   int32 // blocks appended
	state  state
	class  uint8
	opened uint64
	sealed uint64
}

// device is a simulated device: it implements gc.Target.
type device struct {
	array   *Array
	name    string
	index   int
	per     int // blocks per segment
	segs    []segment
	owner   []uint32 // per place: the block appended there and, in the top bit, which of its copies
	free    []uint32 // unused segments
	pending []uint32
	open    [gc.MaxClasses]int32 // open segment per class, -1 if none
	live    int
	gc      *gc.Device
}

var errFull = errors.New("no unused segment")

func newDevice(a *Array, index int, name string, segments, per int) *device {
	d := &device{array: a, name: name, index: index, per: per,
		segs: make([]segment, segments), owner: make([]uint32, segments*per)}
	for i := segments - 1; i >= 0; i-- {
		d.free = append(d.free, uint32(i))
	}
	for i := range d.open {
		d.open[i] = -1
	}
	return d
}

func (d *device) Name() string { return d.name }
func (d *device) Now() uint64  { return d.array.lsn }
func (d *device) Release()     {}

func (d *device) Count() gc.Counts {
	return gc.Counts{Unused: len(d.free), Pending: len(d.pending), Total: len(d.segs)}
}

func (d *device) Candidates(fn func(gc.SegmentInfo) bool) {
	for i := range d.segs {
		if s := &d.segs[i]; s.state == sealed && !fn(d.info(i, s)) {
			return
		}
	}
}

func (d *device) info(i int, s *segment) gc.SegmentInfo {
	return gc.SegmentInfo{ID: gc.SegmentID(i), Live: int(s.live), Capacity: d.per, Opened: s.opened, Sealed: s.sealed, Class: int(s.class)}
}

// append puts a block into the open segment of a class and returns its place.
func (d *device) append(class int, owner uint32) (place uint32, err error) {
	at := d.open[class]
	if at < 0 {
		if at, err = d.openSegment(class); err != nil {
			return 0, err
		}
	}
	s := &d.segs[at]
	place = uint32(at)*uint32(d.per) + uint32(s.fill)
	d.owner[place] = owner
	s.fill++
	s.live++
	d.live++
	if int(s.fill) == d.per {
		s.state, s.sealed = sealed, d.array.lsn
		for c, o := range d.open { // a full device shares one open segment among classes
			if o == at {
				d.open[c] = -1
			}
		}
		if s.live == 0 {
			d.empty(at)
		}
	}
	return place, nil
}

// openSegment takes an unused segment, or, where there is none, shares what another class has open.
func (d *device) openSegment(class int) (int32, error) {
	if len(d.free) == 0 {
		for _, o := range d.open {
			if o >= 0 {
				d.open[class] = o
				return o, nil
			}
		}
		return -1, errFull
	}
	at := int32(d.free[len(d.free)-1])
	d.free = d.free[:len(d.free)-1]
	d.segs[at] = segment{state: open, class: uint8(class), opened: d.array.lsn}
	d.open[class] = at
	d.array.onTook(d)
	return at, nil
}

// dead takes note that the block at a place was overwritten or relocated.
func (d *device) dead(place uint32) {
	at := int32(place / uint32(d.per))
	s := &d.segs[at]
	s.live--
	d.live--
	if s.live == 0 && s.state == sealed {
		d.empty(at)
	}
}

func (d *device) empty(at int32) {
	d.segs[at].state = pending
	d.pending = append(d.pending, uint32(at))
	d.array.onEmptied(d)
}

// checkpoint makes what is pending unused. The first segment used is the one freed longest ago.
func (d *device) checkpoint() {
	if len(d.pending) == 0 {
		return
	}
	for _, at := range d.pending {
		d.segs[at].state = unused
	}
	d.free = append(d.free, d.pending...)
	d.pending = d.pending[:0]
}

// Collect relocates a whole segment at once: for simulations without service times.
func (d *device) Collect(_ context.Context, id gc.SegmentID, _ gc.Pacer) (int, error) {
	moved, _, err := d.relocate(id, 0, d.per)
	return moved, err
}

// relocate moves up to n live blocks of a segment from place from on. It reports how many it moved and the place
// to go on from.
func (d *device) relocate(id gc.SegmentID, from, n int) (moved, next int, err error) {
	base := uint32(id) * uint32(d.per)
	class := int(d.segs[id].class)
	if d.segs[id].state != sealed { // overwriting emptied it meanwhile
		return 0, d.per, nil
	}
	i := from
	for ; i < d.per && moved < n; i++ {
		place := base + uint32(i)
		if !d.array.at(d, place) {
			continue
		}
		if err := d.array.move(d, place, class); err != nil {
			return moved, i, err
		}
		moved++
	}
	return moved, i, nil
}

// reserve is how many segments users leave to collection.
const reserve = 2

// tight reports that a device takes no users' writes for want of unused segments.
func (d *device) tight() bool { return len(d.free) <= reserve }
