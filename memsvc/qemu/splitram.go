package qemu

import (
	"fmt"
	"io"
	"os"
)

// maxCopied bounds the RAM blocks that are not the shared file's, in bytes. They are copied: ROMs, video memory.
const maxCopied = 1 << 30

// splitRAM is the RAM of a VM most of which is a shared file. The rest comes with the stream and is kept here. It is
// a pageSink for the stream, then an io.ReaderAt for the way on.
type splitRAM struct {
	file   *os.File
	size   int64  // of the file
	name   string // of the file's RAM block
	blocks []Block
	copies [][]byte // by block; nil for the file's
	shared Block
}

func (s *splitRAM) begin(state *State) error {
	b, ok := state.Block(s.name)
	switch {
	case !state.IgnoresShared:
		return malformed("the source sends all of its RAM, although the migration capability x-ignore-shared was switched on")
	case !ok:
		return unsupported("a RAM block that is not called after its memory backend %q", s.name)
	case b.Size != s.size:
		return malformed("the RAM block %q has %d bytes, its file has %d", s.name, b.Size, s.size)
	case state.Size()-b.Size > maxCopied:
		return unsupported("%d bytes of RAM outside of the shared file: all of it has to be in one file", state.Size()-b.Size)
	}
	s.shared, s.blocks, s.copies = b, state.Blocks, make([][]byte, len(state.Blocks))
	for i, b := range state.Blocks {
		if b.Name != s.name {
			s.copies[i] = make([]byte, b.Size)
		}
	}
	return nil
}

// at finds what holds an offset: the copy of a block, or nil for the file, and the offset in it.
func (s *splitRAM) at(off int64) (copied []byte, inner int64) {
	for i := range s.blocks {
		if b := &s.blocks[i]; off < b.Offset+b.Size {
			return s.copies[i], off - b.Offset
		}
	}
	return nil, 0
}

func (s *splitRAM) page(off int64, p []byte) error {
	copied, inner := s.at(off)
	if copied == nil {
		return malformed("a page of the RAM block %q, which is a shared file: did its backend lose share=on?", s.name)
	}
	copy(copied[inner:], p)
	return nil
}

func (s *splitRAM) zero(off int64) error {
	copied, inner := s.at(off)
	if copied == nil {
		return malformed("a page of the RAM block %q, which is a shared file: did its backend lose share=on?", s.name)
	}
	clear(copied[inner : inner+PageSize])
	return nil
}

func (s *splitRAM) end() error { return nil }

// ReadAt reads from within one block.
func (s *splitRAM) ReadAt(p []byte, off int64) (int, error) {
	copied, inner := s.at(off)
	if copied == nil {
		return s.file.ReadAt(p, inner)
	}
	if inner+int64(len(p)) > int64(len(copied)) {
		return 0, fmt.Errorf("%w: a read across RAM blocks", io.ErrUnexpectedEOF)
	}
	return copy(p, copied[inner:]), nil
}
