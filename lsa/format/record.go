package format

import (
	"encoding/binary"
	"hash/crc32"
)

// A record is one append to a segment: a header of whole sectors that says
// what the record does, then its blocks. Several changes that were made
// together share one.
const (
	recordMagic = 0x5241534c // "LSAR"
	// HeaderFixed is the length of the header before its entries, in bytes.
	HeaderFixed = 80
	// MaxEntries of one record.
	MaxEntries = 4096
	// MaxBlocks of one record: 16 MiB of data.
	MaxBlocks = 4096
	// MaxHeader in bytes: bounds what a reader allocates on a header's word.
	MaxHeader = 256 << 10
	crcOffset = 76
)

// Record flags.
const (
	// FlagAgain marks a record that was appended a second time, elsewhere,
	// with the LSNs it had: its first place is in doubt.
	FlagAgain = 1 << iota
	// FlagVoid marks a record without entries which says that the LSNs it
	// covers were never acknowledged. It wins over any other record of them.
	FlagVoid
	// FlagTwo marks a record of which another device was to get a copy: the
	// same LSNs and entries, its own place. Either alone counts.
	FlagTwo

	knownFlags = FlagAgain | FlagVoid | FlagTwo
)

// RecordHeader is the fixed part of a header.
type RecordHeader struct {
	Flags      uint16
	Sectors    uint16 // length of the header
	Entries    uint16
	Blocks     uint32 // data blocks that follow the header
	Device     uint16
	Segment    uint32
	Sector     uint32 // where the record begins in its segment
	Generation uint64 // of this use of the segment
	Epoch      uint64
	FirstLSN   uint64
	LSNs       uint32 // how many LSNs the record takes: one an entry, or the range of a void
	DurableLSN uint64 // known to be durable when the record was written
	entryBytes uint32
}

// LastLSN is the highest LSN that the record takes.
func (h *RecordHeader) LastLSN() uint64 { return h.FirstLSN + uint64(h.LSNs) - 1 }

// TotalSectors is the length of the whole record.
func (h *RecordHeader) TotalSectors() uint32 { return uint32(h.Sectors) + h.Blocks*BlockSectors }

// HeaderSectors is how many sectors a header with so many bytes of entries takes.
func HeaderSectors(entryBytes int) int {
	return (HeaderFixed + entryBytes + SectorSize - 1) / SectorSize
}

// PutRecordHeader completes a header in buf, whose entries were appended behind
// HeaderFixed bytes and which is padded with zeros to whole sectors here.
// It returns the header, len(buf) = h.Sectors*SectorSize. The checksum is
// seeded with the array's secret, so that no guest can forge a record by
// writing its bytes into a volume.
func PutRecordHeader(buf []byte, h *RecordHeader, secret uint64) []byte {
	entryBytes := len(buf) - HeaderFixed
	sectors := HeaderSectors(entryBytes)
	for len(buf) < sectors*SectorSize {
		buf = append(buf, 0)
	}
	h.Sectors, h.entryBytes = uint16(sectors), uint32(entryBytes)
	le := binary.LittleEndian
	le.PutUint32(buf[0:], recordMagic)
	le.PutUint16(buf[4:], Version)
	le.PutUint16(buf[6:], h.Flags)
	le.PutUint16(buf[8:], h.Sectors)
	le.PutUint16(buf[10:], h.Entries)
	le.PutUint32(buf[12:], h.Blocks)
	le.PutUint64(buf[16:], h.Generation)
	le.PutUint16(buf[24:], h.Device)
	le.PutUint16(buf[26:], 0)
	le.PutUint32(buf[28:], h.Segment)
	le.PutUint32(buf[32:], h.Sector)
	le.PutUint32(buf[36:], h.LSNs)
	le.PutUint64(buf[40:], h.Epoch)
	le.PutUint64(buf[48:], h.FirstLSN)
	le.PutUint64(buf[56:], h.DurableLSN)
	le.PutUint32(buf[64:], h.entryBytes)
	le.PutUint64(buf[68:], 0)
	le.PutUint32(buf[crcOffset:], headerChecksum(buf, secret))
	return buf
}

// PeekRecordHeader reads the fixed part from the first sector of a record
// without checking its checksum: it says how many bytes to read before
// CheckRecordHeader can. ok is false where no record begins.
func PeekRecordHeader(sector []byte) (h RecordHeader, ok bool) {
	le := binary.LittleEndian
	if len(sector) < HeaderFixed || le.Uint32(sector) != recordMagic || le.Uint16(sector[4:]) != Version {
		return h, false
	}
	h = RecordHeader{
		Flags:      le.Uint16(sector[6:]),
		Sectors:    le.Uint16(sector[8:]),
		Entries:    le.Uint16(sector[10:]),
		Blocks:     le.Uint32(sector[12:]),
		Generation: le.Uint64(sector[16:]),
		Device:     le.Uint16(sector[24:]),
		Segment:    le.Uint32(sector[28:]),
		Sector:     le.Uint32(sector[32:]),
		LSNs:       le.Uint32(sector[36:]),
		Epoch:      le.Uint64(sector[40:]),
		FirstLSN:   le.Uint64(sector[48:]),
		DurableLSN: le.Uint64(sector[56:]),
		entryBytes: le.Uint32(sector[64:]),
	}
	switch {
	case h.Flags&^knownFlags != 0, h.Blocks > MaxBlocks, h.Entries > MaxEntries,
		int(h.Sectors)*SectorSize > MaxHeader,
		int(h.entryBytes) > MaxHeader,
		int(h.Sectors) != HeaderSectors(int(h.entryBytes)),
		le.Uint16(sector[26:]) != 0, le.Uint64(sector[68:]) != 0,
		h.LSNs == 0, h.FirstLSN == 0, h.FirstLSN+uint64(h.LSNs) < h.FirstLSN,
		h.Flags&FlagVoid != 0 && (h.Entries != 0 || h.Blocks != 0),
		h.Flags&FlagVoid == 0 && h.LSNs != uint32(h.Entries):
		return h, false
	}
	return h, true
}

// CheckRecordHeader says whether header, all of h's sectors, is intact.
func CheckRecordHeader(header []byte, h *RecordHeader, secret uint64) bool {
	return len(header) == int(h.Sectors)*SectorSize &&
		binary.LittleEndian.Uint32(header[crcOffset:]) == headerChecksum(header, secret)
}

func headerChecksum(header []byte, secret uint64) uint32 {
	// The secret's eight bytes by hand: a slice of them would be on the heap.
	crc := ^uint32(0)
	for i := range 8 {
		crc = castagnoli[byte(crc)^byte(secret>>(8*i))] ^ crc>>8
	}
	crc = crc32.Update(^crc, castagnoli, header[:crcOffset])
	return crc32.Update(crc, castagnoli, header[crcOffset+4:])
}
