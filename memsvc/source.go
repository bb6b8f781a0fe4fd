package memsvc

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Source is the memory of a paused guest in files. Its address space is that of the image: RAM blocks one after the
// other.
type Source struct {
	Kind    string // "raw", "elf" or "qemu"
	Machine string
	Blocks  []Block
	// Layouts are other places in the guest where the ranges of the only block may be. The first that makes sense
	// is taken; none: Blocks says it.
	Layouts [][]Range
	CR3     []uint64 // of the guest's processors, where that is known
	pieces  []Piece
}

// Piece of a source: Size bytes of the address space, of which the first FileSize are in a file, and the rest zeros.
type Piece struct {
	File     *os.File
	Off      int64 // in the file
	FileSize int64
	Size     int64
	off      int64 // in the source
}

// NewSource makes a source of pieces, which cover the blocks in their order. The files stay the caller's.
func NewSource(kind string, blocks []Block, pieces []Piece) (*Source, error) {
	s := &Source{Kind: kind, Blocks: blocks, pieces: pieces}
	next := int64(0)
	for i := range s.Blocks {
		s.Blocks[i].Offset = next
		next += max(0, s.Blocks[i].Size)
	}
	if err := validateBlocks(s.Blocks); err != nil {
		return nil, err
	}
	total := int64(0)
	for i := range pieces {
		p := &pieces[i]
		if p.Size <= 0 || p.Size%PageSize != 0 || p.FileSize < 0 || p.FileSize > p.Size || p.Off < 0 || total > MaxRAM-p.Size {
			return nil, fmt.Errorf("%w: %d bytes of memory with %d bytes at %d of a file", ErrInvalid, p.Size, p.FileSize, p.Off)
		}
		p.off = total
		total += p.Size
	}
	if total != next {
		return nil, fmt.Errorf("%w: files have %d bytes of memory, the RAM blocks %d", ErrInvalid, total, next)
	}
	return s, nil
}

// Size in bytes of all RAM blocks.
func (s *Source) Size() int64 {
	last := &s.pieces[len(s.pieces)-1]
	return last.off + last.Size
}

// ReadAt fills p from an offset.
func (s *Source) ReadAt(p []byte, off int64) error {
	for i := range s.pieces {
		q := &s.pieces[i]
		if off >= q.off+q.Size {
			continue
		}
		n := int(min(int64(len(p)), q.off+q.Size-off))
		if err := q.readAt(p[:n], off-q.off); err != nil {
			return fmt.Errorf("read %s at %d: %w", q.File.Name(), q.Off+off-q.off, err)
		}
		if p, off = p[n:], off+int64(n); len(p) == 0 {
			return nil
		}
	}
	return fmt.Errorf("%w: %d bytes beyond the end of the memory", ErrInvalid, len(p))
}

// errShorter: a file ends where it had memory before.
var errShorter = fmt.Errorf("%w: the file became shorter", ErrInvalid)

func (p *Piece) readAt(b []byte, off int64) error {
	n := int(max(0, min(int64(len(b)), p.FileSize-off)))
	clear(b[n:])
	if n == 0 {
		return nil
	}
	if got, err := p.File.ReadAt(b[:n], p.Off+off); got < n {
		if errors.Is(err, io.EOF) {
			return errShorter
		}
		return err
	}
	return nil
}

// extent of a source that may hold something else than zeros.
type extent struct{ off, end int64 }

// extents lists, in order, what the files have data for.
func (s *Source) extents() ([]extent, error) {
	var all []extent
	for i := range s.pieces {
		p := &s.pieces[i]
		err := p.extents(func(off, end int64) {
			off, end = p.off+off&^(PageSize-1), p.off+min(p.Size, (end+PageSize-1)&^(PageSize-1))
			if n := len(all); n > 0 && all[n-1].end >= off {
				all[n-1].end = end
				return
			}
			all = append(all, extent{off, end})
		})
		if err != nil {
			return nil, fmt.Errorf("find holes in %s: %w", p.File.Name(), err)
		}
	}
	return all, nil
}

// extents calls fn with ranges of the piece, [off, end), where its file has data.
func (p *Piece) extents(fn func(off, end int64)) error {
	end := p.Off + p.FileSize
	if info, err := p.File.Stat(); err != nil || info.Size() < end {
		return errors.Join(errShorter, err)
	}
	for at := p.Off; at < end; {
		data, err := unix.Seek(int(p.File.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // no data from here on
		}
		if errors.Is(err, unix.EINVAL) {
			fn(at-p.Off, p.FileSize) // a file system that does not tell
			return nil
		}
		if err != nil {
			return err
		}
		if data = max(data, at); data >= end {
			return nil
		}
		hole, err := unix.Seek(int(p.File.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if hole = min(hole, end); hole <= data {
			return fmt.Errorf("%w: the file changes", ErrInvalid)
		}
		fn(data-p.Off, hole-p.Off)
		at = hole
	}
	return nil
}
