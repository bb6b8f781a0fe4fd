package lsa

import (
	"sync"
	"sync/atomic"

	"lsad/lsa/format"
)

// queueLength bounds the batches that are reserved and not committed.
const queueLength = 1024

// maxRecordBlocks of one record: 4 MiB of data.
const maxRecordBlocks = 1024

// change is one entry of a record on its way into the log and the map.
type change struct {
	kind   format.EntryKind
	layer  uint64
	block  uint64
	count  uint64
	lsn    uint64
	crcs   []uint32
	data   []byte // of all its blocks
	place  format.Place
	second format.Place // of the other copy, zero if there is none
	oldLSN uint64       // EntryMove
	from   format.Place
	admin  []byte // EntryAdmin: the payload
	want   uint8  // class of data that it belongs to
	class  uint8  // which open segment it goes to
}

// placement is where a copy of a record goes.
type placement struct {
	dev         *device // nil: there is no such copy
	seg, sector uint32
	generation  uint64
}

// record is a part of a batch: one append, or two of the same on different devices.
type record struct {
	placement
	second      placement
	class       uint8
	sectors     uint32 // header and data
	first, lsns uint64
	changes     []change // of the batch, those that are in this record
	entryBytes  int
	blocks      int
	flags       uint16
}

// batch is some changes that get their LSNs together.
type batch struct {
	origin  int
	classes uint8    // of the changes, a bit each: see place
	mixed   bool     // not all changes have the class that they belong to
	urgent  bool     // may use the reserve: it makes room, or little is asked
	copies  int      // 2: on two devices, if two take writes; else on one
	prefer  *device  // goes there if there is room; nil: wherever it is best
	avoid   uint64   // bits of slots where it must not go
	changes []change // as asked for; packing may cut them
	packed  []change
	records []record
	pins    []pinned
	add     int64 // blocks that it may add to the array's used ones

	first, last uint64
	apply       func() // an administrative change, done at commit
	written     atomic.Bool
	err         error
	wake        chan struct{}

	crcs   []uint32
	order  []uint32 // scratch of joinOverlapping
	out    [2]output
	copied sync.WaitGroup
}

// output is what a record is put together in, for each copy.
type output struct {
	header []byte
	iovecs [][]byte
	err    error
}

type pinned struct{ layer, page uint64 }

var batches = sync.Pool{New: func() any { return &batch{wake: make(chan struct{}, 1)} }}

func newBatch(origin int) *batch {
	b := batches.Get().(*batch)
	b.origin, b.urgent = origin, origin != originUser
	b.classes = 1 << origin
	return b
}

// release gives the batch's memory back. Nothing may refer to it any more.
func (b *batch) release() {
	clear(b.changes)
	clear(b.packed)
	clear(b.records)
	for i := range b.out {
		clear(b.out[i].iovecs)
		b.out[i].err = nil
	}
	b.changes, b.packed, b.records = b.changes[:0], b.packed[:0], b.records[:0]
	b.pins, b.crcs = b.pins[:0], b.crcs[:0]
	b.apply, b.err, b.add, b.first, b.last = nil, nil, 0, 0, 0
	b.copies, b.prefer, b.avoid, b.mixed = 0, nil, 0, false
	b.written.Store(false)
	batches.Put(b)
}

// addWrite adds whole blocks of data, and checksums them.
func (b *batch) addWrite(layer, block uint64, data []byte) {
	n := len(data) / format.BlockSize
	start := len(b.crcs)
	for i := range n {
		b.crcs = append(b.crcs, format.Checksum(data[i*format.BlockSize:][:format.BlockSize]))
	}
	b.changes = append(b.changes, change{
		kind: format.EntryWrite, layer: layer, block: block, count: uint64(n),
		crcs: b.crcs[start:len(b.crcs):len(b.crcs)], data: data,
	})
}

func (b *batch) addRange(kind format.EntryKind, layer, block, count uint64) {
	b.changes = append(b.changes, change{kind: kind, layer: layer, block: block, count: count})
}

func (b *batch) addMove(layer, block, oldLSN uint64, from format.Place, crc uint32, data []byte) {
	b.crcs = append(b.crcs, crc)
	n := len(b.crcs)
	b.changes = append(b.changes, change{
		kind: format.EntryMove, layer: layer, block: block, count: 1, oldLSN: oldLSN, from: from,
		crcs: b.crcs[n-1 : n : n], data: data,
	})
}

// room is a bound on the sectors that each class of a batch takes in the log,
// zero where it has nothing of that class.
type room [MaxClasses]uint32

// room bounds what the batch takes. No class takes less than two blocks: where
// less than that is left, a segment is sealed.
func (b *batch) room() (r room) {
	var bytes, blocks, entries [MaxClasses]int
	for i := range b.changes {
		c := &b.changes[i]
		bytes[c.class] += c.entryBytes(int(c.count))
		blocks[c.class] += c.dataBlocks()
		entries[c.class]++
	}
	for class, n := range entries {
		if n > 0 {
			records := blocks[class]/maxRecordBlocks + n/maxRecordEntries + 2
			sectors := bytes[class]/format.SectorSize + 2*records + blocks[class]*format.BlockSectors
			r[class] = max(uint32(sectors), 2*format.BlockSectors)
		}
	}
	return r
}

// total sectors of all classes.
func (r *room) total() (n uint32) {
	for _, sectors := range r {
		n += sectors
	}
	return n
}

// maxRecordEntries keeps headers within what readers accept.
const maxRecordEntries = 1024

func (c *change) dataBlocks() int {
	if c.kind == format.EntryWrite || c.kind == format.EntryMove {
		return int(c.count)
	}
	return 0
}

// entryBytes of the change if it has n blocks.
func (c *change) entryBytes(n int) int {
	switch c.kind {
	case format.EntryWrite:
		return format.WriteEntryBytes(n)
	case format.EntryMove:
		return format.MoveEntryBytes
	case format.EntryAdmin:
		return 8 + len(c.admin)
	}
	return 32
}

// encode appends the change's entry to a header.
func (c *change) encode(header []byte) []byte {
	switch c.kind {
	case format.EntryWrite:
		return format.AppendWriteEntry(header, c.layer, c.block, c.crcs)
	case format.EntryMove:
		return format.AppendMoveEntry(header, c.layer, c.block, c.oldLSN, c.from, c.crcs[0])
	case format.EntryAdmin:
		return format.AppendAdminEntry(header, c.admin)
	}
	return format.AppendRangeEntry(header, c.kind, c.layer, c.block, c.count)
}
