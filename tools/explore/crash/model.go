package crash

import (
	"sync"

	"lsad/lsa"
)

// op is one change that a client asked for. Times are ticks of Run.clock.
type op struct {
	kind   string
	inv    int64 // before the call
	ack    int64 // after it; 0 if it is under way or failed
	failed bool  // it may have taken effect or not
}

// version is what one op made of a cell.
type version struct {
	op  *op // nil for what the cell held when the life began
	tag tag
}

// volume is what the model knows of a volume. Ops that change the same cell are
// kept apart (by units), so the versions of a cell have one order.
type volume struct {
	name   string
	copies int
	clone  bool // made in this life, of a snapshot
	cells  [][]version
	units  units
	h      *lsa.Handle

	// exclusive: data operations share it; reverting, resizing, deleting
	// have it alone.
	exclusive sync.RWMutex
	blocks    int  // size; guarded by exclusive
	unusable  bool // an administrative change failed: what it is now is not known
}

// snapshot is what the model knows of a snapshot.
type snapshot struct {
	name   string
	vol    *volume
	op     *op   // that made it; nil if it was there when the life began
	blocks int   // size
	pinned []tag // contents, if known for sure
}

// volumeState is a volume in a catalogue.
type volumeState struct {
	vol    *volume
	blocks int
	snaps  []*snapshot // oldest first
	origin string
}

// catalog is what volumes there are after some administrative change. It is
// never changed: each change makes the next one.
type catalog struct {
	op      *op // that made it
	volumes map[string]volumeState
}

func (c *catalog) clone(o *op) *catalog {
	n := &catalog{op: o, volumes: make(map[string]volumeState, len(c.volumes)+1)}
	for k, v := range c.volumes {
		n.volumes[k] = v
	}
	return n
}

func newVolume(name string, blocks, copies int) *volume {
	v := &volume{name: name, blocks: blocks, copies: copies}
	v.units.busy = map[int]bool{}
	v.units.free.L = &v.units.mu
	v.grow(blocks)
	return v
}

func (v *volume) grow(blocks int) {
	for len(v.cells) < blocks*cellsPerBlock {
		v.cells = append(v.cells, []version{{}})
	}
}

// latest are the versions that a read may return now: the last that was
// acknowledged, and those behind it that failed.
func latest(versions []version) []version {
	for i := len(versions) - 1; ; i-- {
		if o := versions[i].op; o == nil || !o.failed {
			return versions[i:]
		}
	}
}

// unitCells is how many cells are kept apart from others together.
const unitCells = 4

// units keeps ops that touch the same cells apart.
type units struct {
	mu   sync.Mutex
	free sync.Cond
	busy map[int]bool
}

type cellRange struct{ from, to int }

// lock takes all the units of some ranges of cells at once.
func (u *units) lock(ranges []cellRange) {
	u.mu.Lock()
	for !u.allFree(ranges) {
		u.free.Wait()
	}
	u.set(ranges, true)
	u.mu.Unlock()
}

func (u *units) tryLock(ranges []cellRange) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.allFree(ranges) {
		return false
	}
	u.set(ranges, true)
	return true
}

func (u *units) unlock(ranges []cellRange) {
	u.mu.Lock()
	u.set(ranges, false)
	u.free.Broadcast()
	u.mu.Unlock()
}

func (u *units) allFree(ranges []cellRange) bool {
	for _, r := range ranges {
		for i := r.from / unitCells; i*unitCells < r.to; i++ {
			if u.busy[i] {
				return false
			}
		}
	}
	return true
}

func (u *units) set(ranges []cellRange, busy bool) {
	for _, r := range ranges {
		for i := r.from / unitCells; i*unitCells < r.to; i++ {
			if busy {
				u.busy[i] = true
			} else {
				delete(u.busy, i)
			}
		}
	}
}
