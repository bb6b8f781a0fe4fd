package mirrorfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// isTable says whether a file is a table of the store: written once, in blocks that carry a checksum.
func isTable(name string) bool { return strings.HasSuffix(name, tableSuffix) }

const tableSuffix = ".sst"

// errNotWritten: the bytes are not those that were written.
var errNotWritten = errors.New("damaged data")

// blockTrailer is the length in bytes of what ends a block of a table: its kind and a checksum.
const blockTrailer = 5

// isBlock says whether p is a block of a table that is intact, with its trailer: the masked CRC-32C of all before it,
// as LevelDB's table format has it (doc/table_format.md, doc/log_format.md). Reads of other parts are no blocks.
func isBlock(p []byte) bool {
	if len(p) <= blockTrailer {
		return false
	}
	body := len(p) - 4
	c := crc32.Checksum(p[:body], castagnoli)
	return (c>>15|c<<17)+0xa282ead8 == binary.LittleEndian.Uint32(p[body:])
}

// checkTable reads a table of one side whole, and verifies every block of it.
func (s *side) checkTable(ctx context.Context, name string) error {
	f, err := s.FS.Open(s.path(name))
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	o := &pebble.Options{}
	o.EnsureDefaults()
	r, err := sstable.NewReader(ctx, readable, o.MakeReaderOptions())
	if err != nil {
		return errors.Join(fmt.Errorf("%w: %w", errNotWritten, err), readable.Close())
	}
	err = r.ValidateBlockChecksums()
	if err != nil {
		err = fmt.Errorf("%w: %w", errNotWritten, err)
	}
	return errors.Join(err, r.Close())
}
