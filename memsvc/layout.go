package memsvc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"lsad/internal/config"
)

// Places below 4 GiB where VMMs put devices, so that RAM behind a certain size goes on at 4 GiB.
const (
	fourGiB = 4 << 30
	// QEMU's "pc" machine, from 3.5 GiB of RAM on (hw/i386/pc_piix.c, max_ram_below_4g), and Cloud Hypervisor.
	splitPC, splitPCFrom = 3 << 30, 0xe0000000
	// QEMU's "q35", from 2.75 GiB of RAM on (hw/i386/pc_q35.c).
	splitQ35, splitQ35From = 2 << 30, 0xb0000000
	// Firecracker leaves 768 MiB below 4 GiB, and since it has PCI (1.13, src/vmm/src/arch/x86_64/layout.rs) 1 GiB. A
	// snapshot does not say which.
	splitFirecracker, splitFirecrackerPCI = fourGiB - 768<<20, fourGiB - 1<<30
)

// layouts by name, in the order in which they are tried where none is given: where RAM is split, and from what size
// on.
var layouts = []struct {
	name     string
	at, from int64
}{
	{"pc", splitPC, splitPCFrom},
	{"q35", splitQ35, splitQ35From},
	{"firecracker", splitFirecracker, splitFirecracker + 1},
	{"firecracker", splitFirecrackerPCI, splitFirecrackerPCI + 1},
	{"cloud-hypervisor", splitPC, splitPC + 1},
	{"flat", MaxRAM, MaxRAM},
}

// Layouts returns where the bytes of a RAM file are in the guest, as spec says: a name of LayoutNames, or a list
// GPA:SIZE,... of ranges in the order of the file, each size in bytes or with a unit. For "auto", and a VMM that does it in
// several ways, it returns all that are possible, each once, the likeliest first.
func Layouts(spec string, size int64) ([][]Range, error) {
	if size <= 0 || size%PageSize != 0 || size > MaxRAM {
		return nil, fmt.Errorf("%w: RAM of %d bytes is not a number of whole pages", ErrInvalid, size)
	}
	if strings.ContainsRune(spec, ':') {
		ranges, err := parseRanges(spec, size)
		return [][]Range{ranges}, err
	}
	every := spec == "" || spec == "auto"
	var all [][]Range
	seen := map[int64]bool{}
	for _, l := range layouts {
		ranges := []Range{{0, size}}
		if size >= l.from {
			ranges = []Range{{0, l.at}, {fourGiB, size - l.at}}
		}
		if !every && l.name != spec {
			continue
		}
		if !seen[ranges[0].Size] {
			seen[ranges[0].Size] = true
			all = append(all, ranges)
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	return nil, fmt.Errorf("layout %q: %w: want auto, %s, or GPA:SIZE,GPA:SIZE", spec, ErrInvalid, strings.Join(LayoutNames(), ", "))
}

// LayoutNames are the names that Layouts knows besides "auto".
func LayoutNames() []string {
	var all []string
	for _, l := range layouts {
		all = append(all, l.name)
	}
	return slices.Compact(all)
}

// parseLength reads the size of a range: bytes, hexadecimal too, or with a unit as everywhere else.
func parseLength(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 0, 64); err == nil {
		return n, nil
	}
	n, err := config.ParseSize(s)
	return int64(n), err
}

func parseRanges(spec string, size int64) ([]Range, error) {
	var ranges []Range
	for part := range strings.SplitSeq(spec, ",") {
		gpa, length, _ := strings.Cut(part, ":")
		at, err := strconv.ParseUint(gpa, 0, 63)
		if err != nil {
			return nil, fmt.Errorf("layout %q: %w: %q is no address", spec, ErrInvalid, gpa)
		}
		n, err := parseLength(length)
		if err != nil {
			return nil, fmt.Errorf("layout %q: %w: %q is no size; want bytes, or a number and a unit, such as 3GiB", spec, ErrInvalid, length)
		}
		ranges = append(ranges, Range{at, n})
		if len(ranges) > MaxRanges {
			return nil, fmt.Errorf("layout: %w: more than %d ranges", ErrInvalid, MaxRanges)
		}
	}
	b := Block{Name: "ram", Size: size, Ranges: ranges}
	if err := b.validate(); err != nil {
		return nil, fmt.Errorf("layout %q for a file of %d bytes: %w", spec, size, err)
	}
	return ranges, nil
}
