package lsa

import (
	"cmp"
	"slices"
	"sync"

	"lsad/lsa/format"
)

const (
	// moveBytes is the most that a collection moves at a time: what clients ask of the device meanwhile waits.
	moveBytes = 256 << 10
	// spanBytes is the most that it reads at once, and gapBlocks the dead blocks between live ones that it reads
	// along: a few more blocks cost a disk less than another read does.
	spanBytes = 64 << 10
	gapBlocks = 8
)

// mover is the memory that a part of a collection takes.
type mover struct {
	blocks, span []byte
	bad          []bool
	order        []int
}

var movers = sync.Pool{New: func() any { return new(mover) }}

// readLive returns blocks of one segment, in the order of live, read with few large reads. It says which of them
// could not be read or are not what the map says they are.
func (m *mover) readLive(d *device, seg uint32, live []liveBlock) (blocks []byte, bad []bool) {
	size := len(live) * format.BlockSize
	m.blocks = slices.Grow(m.blocks[:0], size)[:size]
	m.bad, m.order = m.bad[:0], m.order[:0]
	for i := range live {
		m.bad, m.order = append(m.bad, false), append(m.order, i)
	}
	order := m.order
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(live[i].place.Sector(), live[j].place.Sector()) })
	for len(order) > 0 {
		first := live[order[0]].place.Sector()
		n := spanLength(live, order)
		bytes := int(live[order[n-1]].place.Sector()-first)*format.SectorSize + format.BlockSize
		m.span = slices.Grow(m.span[:0], bytes)[:bytes]
		err := d.dev.ReadAt(m.span, d.offset(seg, first))
		for _, i := range order[:n] {
			block := m.span[int(live[i].place.Sector()-first)*format.SectorSize:][:format.BlockSize]
			m.bad[i] = err != nil || format.Checksum(block) != live[i].crc
			copy(m.blocks[i*format.BlockSize:], block)
		}
		order = order[n:]
	}
	return m.blocks, m.bad
}

// spanLength counts the blocks at the front of order that are read at once.
func spanLength(live []liveBlock, order []int) int {
	first, n := live[order[0]].place.Sector(), 1
	for n < len(order) {
		at, before := live[order[n]].place.Sector(), live[order[n-1]].place.Sector()
		if at-before > (gapBlocks+1)*format.BlockSectors || int(at-first)*format.SectorSize+format.BlockSize > spanBytes {
			break
		}
		n++
	}
	return n
}
