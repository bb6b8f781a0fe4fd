package format

import "encoding/binary"

// EntryKind says what an entry of a record does.
type EntryKind uint8

// The kinds of entry. Values are on disk: never reuse one.
const (
	// EntryWrite maps Count blocks from Block on to the record's next blocks.
	EntryWrite EntryKind = 1
	// EntryTrim unmaps Count blocks.
	EntryTrim EntryKind = 2
	// EntryZero maps Count blocks as zero but allocated.
	EntryZero EntryKind = 3
	// EntryMove maps one block, which lay at From with OldLSN, to the record's
	// next block, if the map still has that place and that LSN. From zero means
	// that the block has one copy, and gets another.
	EntryMove EntryKind = 4
	// EntryAdmin changes the catalogue: Payload is a JSON document.
	EntryAdmin EntryKind = 5
)

// MaxAdminPayload bounds an administrative change, in bytes.
const MaxAdminPayload = 64 << 10

// Entry is one change. Layer, Block and Count mean nothing for EntryAdmin.
type Entry struct {
	Kind    EntryKind
	Layer   uint64
	Block   uint64
	Count   uint64 // blocks: 1 to MaxBlocks where the entry has data
	OldLSN  uint64 // EntryMove
	From    Place  // EntryMove
	CRCs    []byte // EntryWrite, EntryMove: four bytes a block, little-endian
	Payload []byte // EntryAdmin
}

// CRC is the checksum of the i-th block of the entry.
func (e *Entry) CRC(i int) uint32 { return binary.LittleEndian.Uint32(e.CRCs[4*i:]) }

// DataBlocks is how many of the record's blocks belong to the entry.
func (e *Entry) DataBlocks() int {
	if e.Kind == EntryWrite || e.Kind == EntryMove {
		return int(e.Count)
	}
	return 0
}

const (
	writeFixed = 24 // kind, 3 spare, count u32, layer, block
	rangeFixed = 32 // kind, 7 spare, layer, block, count u64
	moveFixed  = 40 // kind, 3 spare, crc, layer, block, old LSN, from
	adminFixed = 8  // kind, 3 spare, length u32
)

// WriteEntryBytes is the length of an EntryWrite of so many blocks.
func WriteEntryBytes(blocks int) int { return writeFixed + 4*blocks }

// MoveEntryBytes is the length of an EntryMove.
const MoveEntryBytes = moveFixed

// AppendWriteEntry appends an EntryWrite; crcs has one checksum a block.
func AppendWriteEntry(buf []byte, layer, block uint64, crcs []uint32) []byte {
	le := binary.LittleEndian
	buf = append(buf, byte(EntryWrite), 0, 0, 0)
	buf = le.AppendUint32(buf, uint32(len(crcs)))
	buf = le.AppendUint64(buf, layer)
	buf = le.AppendUint64(buf, block)
	for _, c := range crcs {
		buf = le.AppendUint32(buf, c)
	}
	return buf
}

// AppendRangeEntry appends an EntryTrim or EntryZero.
func AppendRangeEntry(buf []byte, kind EntryKind, layer, block, count uint64) []byte {
	le := binary.LittleEndian
	buf = append(buf, byte(kind), 0, 0, 0, 0, 0, 0, 0)
	buf = le.AppendUint64(buf, layer)
	buf = le.AppendUint64(buf, block)
	return le.AppendUint64(buf, count)
}

// AppendMoveEntry appends an EntryMove.
func AppendMoveEntry(buf []byte, layer, block, oldLSN uint64, from Place, crc uint32) []byte {
	le := binary.LittleEndian
	buf = append(buf, byte(EntryMove), 0, 0, 0)
	buf = le.AppendUint32(buf, crc)
	buf = le.AppendUint64(buf, layer)
	buf = le.AppendUint64(buf, block)
	buf = le.AppendUint64(buf, oldLSN)
	return le.AppendUint64(buf, uint64(from))
}

// AppendAdminEntry appends an EntryAdmin.
func AppendAdminEntry(buf, payload []byte) []byte {
	buf = append(buf, byte(EntryAdmin), 0, 0, 0)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(payload)))
	return append(buf, payload...)
}

// DecodeEntries calls fn with each entry of a checked header, in order. The
// entry's slices point into header. It fails, wrapping ErrInvalid, where the
// entries do not add up to what the fixed part says.
func DecodeEntries(header []byte, h *RecordHeader, fn func(e *Entry) error) error {
	if int(h.entryBytes) > len(header)-HeaderFixed {
		return invalid("%d bytes of entries in a header of %d", h.entryBytes, len(header))
	}
	p := header[HeaderFixed : HeaderFixed+int(h.entryBytes)]
	var blocks uint64
	var e Entry
	for i := 0; i < int(h.Entries); i++ {
		n, err := decodeEntry(p, &e)
		if err != nil {
			return err
		}
		p = p[n:]
		if blocks += uint64(e.DataBlocks()); blocks > uint64(h.Blocks) {
			return invalid("entries with more than the record's %d blocks", h.Blocks)
		}
		if err := fn(&e); err != nil {
			return err
		}
	}
	if len(p) != 0 || blocks != uint64(h.Blocks) {
		return invalid("entries leave %d bytes and %d blocks over", len(p), uint64(h.Blocks)-blocks)
	}
	return nil
}

func decodeEntry(p []byte, e *Entry) (int, error) {
	if len(p) < adminFixed {
		return 0, invalid("entry cut short at %d bytes", len(p))
	}
	le := binary.LittleEndian
	*e = Entry{Kind: EntryKind(p[0])}
	n := 0
	if p[1]|p[2]|p[3] != 0 {
		return 0, invalid("entry with something in its spare bytes")
	}
	switch e.Kind {
	case EntryWrite:
		e.Count = uint64(le.Uint32(p[4:]))
		if e.Count == 0 || e.Count > MaxBlocks {
			return 0, invalid("write of %d blocks", e.Count)
		}
		n = WriteEntryBytes(int(e.Count))
		if len(p) < n {
			return 0, invalid("write entry cut short at %d bytes", len(p))
		}
		e.Layer, e.Block, e.CRCs = le.Uint64(p[8:]), le.Uint64(p[16:]), p[writeFixed:n]
	case EntryTrim, EntryZero:
		if n = rangeFixed; len(p) < n {
			return 0, invalid("range entry cut short at %d bytes", len(p))
		}
		e.Layer, e.Block, e.Count = le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint64(p[24:])
		if e.Count == 0 || le.Uint32(p[4:]) != 0 {
			return 0, invalid("range of no blocks, or something in its spare bytes")
		}
	case EntryMove:
		if n = moveFixed; len(p) < n {
			return 0, invalid("move entry cut short at %d bytes", len(p))
		}
		e.Count, e.CRCs = 1, p[4:8]
		e.Layer, e.Block = le.Uint64(p[8:]), le.Uint64(p[16:])
		e.OldLSN, e.From = le.Uint64(p[24:]), Place(le.Uint64(p[32:]))
	case EntryAdmin:
		size := le.Uint32(p[4:])
		if size > MaxAdminPayload || len(p) < adminFixed+int(size) {
			return 0, invalid("administrative entry of %d bytes", size)
		}
		n = adminFixed + int(size)
		e.Payload = p[adminFixed:n]
		return n, nil
	default:
		return 0, invalid("entry of unknown kind %d", p[0])
	}
	if e.Block >= MaxVolumeBlocks || e.Count > MaxVolumeBlocks-e.Block {
		return 0, invalid("entry for blocks %d+%d, beyond any volume", e.Block, e.Count)
	}
	return n, nil
}

// MaxVolumeBlocks is the size of the largest volume: 4 EiB, so that offsets in
// bytes fit into an int64 with room to spare.
const MaxVolumeBlocks = 1 << 50
