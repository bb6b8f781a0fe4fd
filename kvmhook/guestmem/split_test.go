package guestmem

import (
	"bytes"
	"slices"
	"testing"
)

// TestWrongSplit holds that a guest is believed where its RAM is split as the kernel had it, and nowhere else: this is what
// tells the VMMs, and the versions of one, apart whose files look alike.
func TestWrongSplit(t *testing.T) {
	const mib, total = 1 << 20, 12 << 20
	splits := []uint64{8 * mib, 9 * mib, total}
	for _, is := range splits[:2] {
		s := small()
		s.ranges = [][2]uint64{{0, is}, {4 << 30, total - is}}
		s.build(t)
		file := slices.Concat(s.mem...)
		for _, at := range splits {
			low, high := bytes.Clone(file[:at]), bytes.Clone(file[at:])
			ranges := []Range{{GPA: 0, Data: low}}
			if len(high) > 0 {
				ranges = append(ranges, Range{GPA: 4 << 30, Data: high})
			}
			m, err := NewMemory(ranges)
			if err != nil {
				t.Fatal(err)
			}
			set, r, err := FreePages(t.Context(), m, Options{})
			if err != nil || (set != nil) != (at == is) {
				t.Errorf("split at %d, taken for %d: believed %v (%s), %v", is, at, set != nil, r.Why, err)
			}
		}
	}
}
