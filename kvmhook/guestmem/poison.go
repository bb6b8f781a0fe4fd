package guestmem

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync/atomic"
)

// poison is what a Linux guest with page_poison=1 fills its free pages with:
// PAGE_POISON in include/linux/poison.h.
const poison = 0xaa

var (
	poisonPage = bytes.Repeat([]byte{poison}, PageSize)
	poisonWord = binary.LittleEndian.Uint64(poisonPage)
)

// keepPoisoned takes the pages that are full of poison out of the set, and
// returns how many they were.
func keepPoisoned(ctx context.Context, m *Memory, set *PageSet) (uint64, error) {
	var kept atomic.Uint64
	err := eachChunk(ctx, m, func(r *Range, first uint64, part Extent) {
		for off, end := part.Off, part.Off+part.Len; off < end; off += readSize {
			piece := Extent{off, min(readSize, end-off)}
			if !set.hasAny(first+off>>pageShift, piece.Len>>pageShift) {
				continue
			}
			r.eachPage(piece, func(off uint64, data []byte) {
				page := first + off>>pageShift
				if binary.LittleEndian.Uint64(data) == poisonWord && set.Has(page) && bytes.Equal(data, poisonPage) {
					set.Remove(page)
					kept.Add(1)
				}
			})
		}
	})
	return kept.Load(), err
}

// hasAny says whether any of n pages is in the set.
func (s *PageSet) hasAny(first, n uint64) bool {
	for page := first; page < first+n; page++ {
		if s.Has(page) {
			return true
		}
	}
	return false
}
