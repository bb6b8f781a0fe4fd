// Package format owns the bytes that the array keeps: records, superblocks,
// and the keys and values of the metadata store. It encodes and decodes, and
// touches neither devices nor the store: every function here is pure.
//
// All integers are little-endian. Every decoder treats its input as hostile:
// lengths are bounded before anything is allocated, and what does not fit is an
// error that wraps ErrInvalid and names the field. docs/FORMAT.md draws the
// same layouts for people.
package format

import (
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	// BlockSize is the unit of mapping, in bytes.
	BlockSize = 4096
	// SectorSize is the unit of placement and of tearing, in bytes.
	SectorSize = 512
	// BlockSectors is how many sectors a block takes.
	BlockSectors = BlockSize / SectorSize
	// Version of everything written by this build.
	Version = 1
)

// ErrNewer: a later lsad wrote this. It is an ErrInvalid too.
var ErrNewer = fmt.Errorf("%w: made by a newer lsad", ErrInvalid)

// ErrInvalid: the bytes are not what they should be.
var ErrInvalid = errors.New("invalid format")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC-32C of p, the checksum of blocks.
func Checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

func invalid(what string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(what, args...))
}
