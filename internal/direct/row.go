package direct

import "encoding/binary"

// BlockSize is the unit of rows, in bytes.
const BlockSize = 4096

// Row says where a block lies.
type Row struct {
	at  uint64 // zero: ask the server; else slot (8 bits), number in Uses (16), sector of the device (40)
	crc uint32 // CRC-32C of the block
	use uint32 // the number in Uses
}

const (
	rowSize    = 16 // bytes, encoded
	sectorSize = 512
	sectorBits = 40
	indexBits  = 16
	// zeros instead of a place: no block lies in the first sectors of a device, which have its superblock.
	zeros = 1
)

// Zeros is the row of a block that reads as zeros. The Row's own zero value is that of a block of which nothing is told.
func Zeros() Row { return Row{at: zeros} }

func makeRow(slot uint8, index uint16, off int64, crc, use uint32) Row {
	sector := uint64(off) / sectorSize
	if off <= 0 || off%sectorSize != 0 || sector >= 1<<sectorBits {
		return Row{}
	}
	return Row{at: uint64(slot)<<(sectorBits+indexBits) | uint64(index)<<sectorBits | sector, crc: crc, use: use}
}

func (r Row) slot() uint8   { return uint8(r.at >> (sectorBits + indexBits)) }
func (r Row) index() uint16 { return uint16(r.at >> sectorBits) }
func (r Row) offset() int64 { return int64(r.at&(1<<sectorBits-1)) * sectorSize }
func (r Row) told() bool    { return r.at > zeros }

// follows says whether the block lies right behind that of another row, n blocks before it, in the same segment.
func (r Row) follows(first Row, n int) bool {
	return r.at == first.at+uint64(n)*(BlockSize/sectorSize) && r.use == first.use
}

// EncodeRows appends rows to p, 16 bytes each, little-endian.
func EncodeRows(p []byte, rows []Row) []byte {
	for _, r := range rows {
		p = binary.LittleEndian.AppendUint64(p, r.at)
		p = binary.LittleEndian.AppendUint32(p, r.crc)
		p = binary.LittleEndian.AppendUint32(p, r.use)
	}
	return p
}

// decodeRows reads what EncodeRows wrote; what is left of p is ignored.
func decodeRows(p []byte) []Row {
	rows := make([]Row, len(p)/rowSize)
	for i := range rows {
		q := p[i*rowSize:]
		rows[i] = Row{binary.LittleEndian.Uint64(q), binary.LittleEndian.Uint32(q[8:]), binary.LittleEndian.Uint32(q[12:])}
	}
	return rows
}
