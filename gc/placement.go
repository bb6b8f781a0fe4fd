package gc

import (
	"fmt"
	"strings"
)

// MaxClasses bounds the classes of any placement, and so the segments that a device has open at once.
const MaxClasses = 8

// Block is what is known of a block when it is about to be appended. All of it is at hand for free on the
// write path: the map entry that the write replaces says where the old version is and its LSN, and the segment
// table says the class of that segment.
type Block struct {
	// Now is the current LSN.
	Now uint64
	// Written is the LSN of the version that a user write replaces, or of the very version that is being
	// collected (relocation keeps it). Known says whether there is one: a first write has none.
	Written uint64
	Known   bool
	// Class of the segment in which that version lies. Only where Known.
	Class int
	// Collected is true for a block that collection relocates, false for a user's write.
	Collected bool
}

// Age is how many LSNs ago the old version, or the collected one, was written.
func (b Block) Age() uint64 {
	if b.Now < b.Written {
		return 0
	}
	return b.Now - b.Written
}

// Placement says to which class of open segment a block goes, so that blocks which die at about the same time
// die together. One Placement serves the whole array. Its methods may be called at once from many goroutines
// and do not block.
type Placement interface {
	Name() string
	// Classes is the number of classes, 1..MaxClasses.
	Classes() int
	// Place gives the class of a block, 0..Classes()-1.
	Place(b Block) int
	// Victim tells it that a segment is about to be collected; segments is how many the array has.
	Victim(now uint64, s SegmentInfo, segments int)
}

var placements = map[string]func() Placement{
	"none":     func() Placement { return single{} },
	"sepgc":    func() Placement { return sepGC{} },
	"sepbit":   func() Placement { return &sepBIT{} },
	"dac":      func() Placement { return dac{} },
	"interval": func() Placement { return &interval{} },
}

// NewPlacement makes the placement of that name. The error wraps ErrUnknown and lists the names.
func NewPlacement(name string) (Placement, error) {
	if f, ok := placements[name]; ok {
		return f(), nil
	}
	return nil, fmt.Errorf("placement %q, want one of %s: %w", name, strings.Join(PlacementNames(), ", "), ErrUnknown)
}

// PlacementNames lists the placements, sorted.
func PlacementNames() []string { return sortedKeys(placements) }

// single puts everything together.
type single struct{}

func (single) Name() string                    { return "none" }
func (single) Classes() int                    { return 1 }
func (single) Place(Block) int                 { return 0 }
func (single) Victim(uint64, SegmentInfo, int) {}

// sepGC keeps collected blocks, which have shown that they live long, apart from users' writes.
type sepGC struct{}

func (sepGC) Name() string                    { return "sepgc" }
func (sepGC) Classes() int                    { return 2 }
func (sepGC) Victim(uint64, SegmentInfo, int) {}
func (sepGC) Place(b Block) int {
	if b.Collected {
		return 1
	}
	return 0
}
