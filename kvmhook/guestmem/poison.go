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
		for off := part.Off; off < part.Off+part.Len; off += PageSize {
			page := first + off>>pageShift
			if !set.Has(page) || binary.LittleEndian.Uint64(r.Data[off:]) != poisonWord {
				continue
			}
			if bytes.Equal(r.Data[off:off+PageSize], poisonPage) {
				set.Remove(page)
				kept.Add(1)
			}
		}
	})
	return kept.Load(), err
}
