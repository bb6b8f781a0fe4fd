package guestmem

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	gib    = 1 << 30
	fourGB = 4 * gib
)

// A Segment says where a part of a RAM file is in the guest, in bytes.
type Segment struct{ GPA, Off, Len uint64 }

// split maps the first low bytes of a file from address 0 up and the rest from
// 4 GiB up.
func split(size, low uint64) []Segment {
	if size <= low {
		return []Segment{{0, 0, size}}
	}
	return []Segment{{0, 0, low}, {fourGB, low, size - low}}
}

// layouts are how virtual machine monitors place a guest's RAM around the
// addresses below 4 GiB at which its devices are.
var layouts = map[string]func(size uint64) []Segment{
	"flat": func(size uint64) []Segment { return split(size, math.MaxUint64) },
	// QEMU, hw/i386/pc_piix.c (pc_init1): all below 3.5 GiB, or 3 GiB of it.
	"pc": func(size uint64) []Segment {
		if size < 3584<<20 {
			return split(size, size)
		}
		return split(size, 3*gib)
	},
	// QEMU, hw/i386/pc_q35.c (pc_q35_init): all below 2.75 GiB, or 2 GiB of it.
	"q35": func(size uint64) []Segment {
		if size < 2816<<20 {
			return split(size, size)
		}
		return split(size, 2*gib)
	},
	// Firecracker and Cloud Hypervisor keep the GiB below 4 GiB for devices.
	"3g": func(size uint64) []Segment { return split(size, 3*gib) },
}

// LayoutNames are the names that ParseLayout knows, sorted.
func LayoutNames() []string {
	var names []string
	for name := range layouts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ParseLayout returns where a RAM file of size bytes is in the guest. A layout
// is one of LayoutNames, or pairs ADDRESS:LENGTH separated by commas, in bytes,
// decimal or with 0x, which follow one another in the file and make up all of
// it. The error wraps ErrMemory.
func ParseLayout(layout string, size uint64) ([]Segment, error) {
	if f, ok := layouts[layout]; ok {
		return f(size), nil
	}
	var segments []Segment
	var off uint64
	for pair := range strings.SplitSeq(layout, ",") {
		address, length, ok := strings.Cut(pair, ":")
		gpa, err := strconv.ParseUint(address, 0, 64)
		n, err2 := strconv.ParseUint(length, 0, 64)
		if !ok || err != nil || err2 != nil || n > size-off {
			return nil, fmt.Errorf("%w: layout %q for a file of %d bytes: give one of %s, or ADDRESS:LENGTH,...",
				ErrMemory, layout, size, strings.Join(LayoutNames(), ", "))
		}
		segments = append(segments, Segment{gpa, off, n})
		off += n
	}
	if off != size {
		return nil, fmt.Errorf("%w: layout %q has %d bytes, the file %d", ErrMemory, layout, off, size)
	}
	return segments, nil
}
