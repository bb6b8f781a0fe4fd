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
	if mask&(mask-1) != 0 && b.overlaps() {
		b.setClass(int(b.changes[0].class)) // their order counts
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
	b.classes = 1 << class
	for i := range b.changes {
		b.changes[i].class = uint8(class)
	}
}

// overlaps says whether two changes are of the same block.
func (b *batch) overlaps() bool {
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
	for i := 1; i < len(b.order); i++ {
		x, y := &b.changes[b.order[i-1]], &b.changes[b.order[i]]
		if x.layer == y.layer && y.block < x.block+x.count {
			return true
		}
	}
	return false
}

// pick returns where the batch goes, nothing if there is no room now. Where
// segments are few its classes share one, and what makes room takes what is
// left of any open segment. append.mu is held.
func (a *Array) pick(b *batch) (to [2]*device) {
	need := b.room()
	if to = a.pickDevices(b, &need); to[0] != nil {
		return to
	}
	if b.classes&(b.classes-1) != 0 {
		if d := a.append.current; d != nil && b.share(d, need.total()) {
			need = b.room()
			if to = a.pickDevices(b, &need); to[0] != nil {
				return to
			}
		}
		b.setClass(int(b.changes[0].class))
		need = b.room()
		if to = a.pickDevices(b, &need); to[0] != nil {
			return to
		}
	}
	for class := 0; b.urgent && class < MaxClasses && to[0] == nil; class++ {
		b.setClass(class)
		need = b.room()
		to = a.pickDevices(b, &need)
	}
	return to
}

// share gives the changes whose class has no open segment with room for all of
// them on the device the next class that has, or the one before. It returns
// false if none has.
func (b *batch) share(d *device, need uint32) bool {
	var to [MaxClasses]int
	open := -1
	for class := MaxClasses - 1; class >= 0; class-- {
		if s := &d.streams[class]; s.open && d.segSectors()-s.next >= need {
			open = class
		}
		to[class] = open
	}
	if open < 0 {
		return false
	}
	last := open
	for class := range to {
		if to[class] < 0 {
			to[class] = last
		}
		last = to[class]
	}
	b.classes = 0
	for i := range b.changes {
		c := &b.changes[i]
		c.class = uint8(to[c.class])
		b.classes |= 1 << c.class
	}
	return true
}

func (b *batch) firstClass() int { return bits.TrailingZeros8(b.classes) }
