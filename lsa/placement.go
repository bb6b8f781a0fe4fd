package lsa

import (
	"cmp"
	"math/bits"
	"slices"

	"lsad/lsa/blockmap"
)

// MaxClasses bounds the classes of data that are appended apart, and so the
// segments that a device has open at a time.
const MaxClasses = 8

// Origins of data. Where blocks are not separated otherwise, each has a class.
const (
	originUser  = iota // clients
	originMoved        // collections, rebuilds, repairs
	originCount
)

// Placement separates blocks by how long they are expected to live. Its method
// is called from many goroutines, and must not block or call the array.
type Placement interface {
	// Class of a block that is about to be appended, 0 to MaxClasses-1. now is
	// the LSN of the present; written, if known, that of the version which a
	// client replaces or which is being moved, and class that of its segment.
	Class(now, written uint64, known bool, class int, moved bool) int
}

// updateLimit works out how much the array may hold, and whether its devices
// are large enough to separate blocks.
func (a *Array) updateLimit() {
	a.limit.Store(a.capacity())
	a.separates.Store(a.classes() > originCount)
}

// classes is how many segments of a device may be open.
func (a *Array) classes() int {
	if a.opts.Placement == nil {
		return originCount
	}
	for _, d := range a.devs() {
		if d != nil && d.takesWrites() && len(d.segs) < a.opts.SeparateFrom {
			return originCount
		}
	}
	return MaxClasses
}

// place gives the batch's changes their classes. In an array that is less than
// half full what is collected is nearly empty, whatever lies together. The
// batch's pages are pinned.
func (a *Array) place(b *batch) error {
	b.setClass(b.origin)
	if !a.separates.Load() || a.used.Load()*2 < a.limit.Load() {
		return nil
	}
	now, mask := a.committed.Load(), uint8(0)
	for i := range b.changes {
		c := &b.changes[i]
		if c.dataBlocks() > 0 {
			class, err := a.classOf(c, now, b.origin == originMoved)
			if err != nil {
				return err
			}
			c.class = uint8(min(max(class, 0), MaxClasses-1))
		}
		mask |= 1 << c.class
	}
	b.classes = mask
	if mask&(mask-1) != 0 {
		b.joinOverlapping()
	}
	for i := range b.changes {
		b.changes[i].want = b.changes[i].class
	}
	return nil
}

// classOf goes by the first block of a change.
func (a *Array) classOf(c *change, now uint64, moved bool) (int, error) {
	from, written := c.from, c.oldLSN
	if !moved {
		var e [1]blockmap.Entry
		if err := a.blocks.Lookup(c.layer, c.block, e[:]); err != nil {
			return 0, err
		}
		if e[0].Own && e[0].Kind == blockmap.KindData {
			from, written = e[0].Place[0], e[0].LSN
		}
	}
	d := a.devOf(from)
	if from == 0 || d == nil || !d.holds(from, 1) {
		return a.opts.Placement.Class(now, 0, false, 0, moved), nil
	}
	return a.opts.Placement.Class(now, written, true, int(d.segs[from.Segment()].class.Load()), moved), nil
}

// setClass puts all changes together.
func (b *batch) setClass(class int) {
	b.mix(class)
	b.mixed = false
	for i := range b.changes {
		b.changes[i].want = uint8(class)
	}
}

// mix puts all changes together until unmix.
func (b *batch) mix(class int) {
	b.classes, b.mixed = 1<<class, true
	for i := range b.changes {
		b.changes[i].class = uint8(class)
	}
}

// unmix gives the changes their own classes again.
func (b *batch) unmix() {
	if !b.mixed {
		return
	}
	b.classes, b.mixed = 0, false
	for i := range b.changes {
		c := &b.changes[i]
		c.class = c.want
		b.classes |= 1 << c.class
	}
}

// joinOverlapping puts changes of the same block into one class: a class is cut
// into records in order, and so gets its LSNs, but one class after the other.
func (b *batch) joinOverlapping() {
	b.order = b.order[:0]
	for i := range b.changes {
		b.order = append(b.order, uint32(i))
	}
	slices.SortFunc(b.order, func(i, j uint32) int {
		x, y := &b.changes[i], &b.changes[j]
		if x.layer != y.layer {
			return cmp.Compare(x.layer, y.layer)
		}
		return cmp.Compare(x.block, y.block)
	})
	b.classes = 0
	first, end := &b.changes[b.order[0]], uint64(0) // of the changes that overlap
	for _, i := range b.order {
		c := &b.changes[i]
		if c.layer == first.layer && c.block < end {
			c.class = first.class
		} else {
			first, end = c, 0
		}
		end = max(end, c.block+c.count)
		b.classes |= 1 << c.class
	}
}

// pick returns where the batch goes, nothing if there is no room now. Where
// segments are few its classes share one. What makes room takes what is left of
// any open segment: a collection only if it may mix what it moves, or no
// checkpoint would give it room, since a cold block among hot ones is moved
// again and again. append.mu is held.
func (a *Array) pick(b *batch, mix bool) (to [2]*device) {
	b.unmix()
	need := b.room()
	if to = a.pickDevices(b, &need); to[0] != nil {
		return to
	}
	several := b.classes&(b.classes-1) != 0
	if several && a.share(b, a.shareOn(b), need) {
		need = b.room()
		if to = a.pickDevices(b, &need); to[0] != nil {
			return to
		}
	}
	if d := b.prefer; d != nil && !mix && !d.hostFull && (d.emptied() > 0 || d.unused() > a.keptForRescue()) {
		return to // a checkpoint gives it room soon
	}
	if several {
		b.mix(int(b.changes[0].want))
		need = b.room()
		if to = a.pickDevices(b, &need); to[0] != nil {
			return to
		}
	}
	for class := 0; b.urgent && class < MaxClasses && to[0] == nil; class++ {
		b.mix(class)
		need = b.room()
		to = a.pickDevices(b, &need)
	}
	return to
}

// shareOn returns the devices that the batch would go to if they had the room.
// append.mu is held.
func (a *Array) shareOn(b *batch) [2]*device {
	switch {
	case b.prefer != nil:
		return [2]*device{b.prefer}
	case b.copies == 2 && a.writableDevices() > 1:
		return a.append.pair
	}
	return [2]*device{a.append.current}
}

// share has classes share the open segments of a device, or of both. Those that
// fit into their own stay there. Of the others those that need most open one
// each, as many as may be opened; the rest goes to the class nearest to its own
// that has the room, or nothing does and it returns false. append.mu is held.
func (a *Array) share(b *batch, on [2]*device, need room) bool {
	if on[0] == nil {
		return false
	}
	rest, opens := on[0].openRest(), a.openable(on[0], b.urgent)
	if d := on[1]; d != nil {
		opens = min(opens, a.openable(d, b.urgent))
		for class, sectors := range d.openRest() {
			rest[class] = min(rest[class], sectors)
		}
	}
	var to [MaxClasses]uint8
	for class := range to {
		if to[class] = uint8(class); rest[class] >= need[class] {
			rest[class] -= need[class]
			need[class] = 0
		}
	}
	for {
		class, most := 0, uint32(0)
		for c, sectors := range need {
			if sectors > most {
				class, most = c, sectors
			}
		}
		if most == 0 {
			break
		}
		need[class] = 0
		if opens > 0 {
			opens--
			rest[class] = on[0].segSectors() - most
			continue
		}
		near := rest.nearest(class, most)
		if near < 0 {
			return false
		}
		rest[near] -= most
		to[class] = uint8(near)
	}
	b.classes, b.mixed = 0, true
	for i := range b.changes {
		c := &b.changes[i]
		c.class = to[c.class]
		b.classes |= 1 << c.class
	}
	return true
}

// nearest returns the class nearest to one that has so many sectors, the colder
// of two; -1 if none has.
func (r *room) nearest(class int, sectors uint32) int {
	for far := range MaxClasses {
		for _, c := range [...]int{class - far, class + far} {
			if c >= 0 && c < MaxClasses && r[c] >= sectors {
				return c
			}
		}
	}
	return -1
}

// openRest is what is left of the device's open segments. append.mu is held.
func (d *device) openRest() (r room) {
	for class := range d.streams {
		if s := &d.streams[class]; s.open {
			r[class] = d.segSectors() - s.next
		}
	}
	return r
}

func (b *batch) firstClass() int { return bits.TrailingZeros8(b.classes) }
