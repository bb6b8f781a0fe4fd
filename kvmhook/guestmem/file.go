package guestmem

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrFormat means that a file is not what it was said to be. Its text says what
// to do.
var ErrFormat = errors.New("not a memory file")

// A File is a guest's memory in a memory-mapped file.
type File struct {
	// Memory is valid until Close. Its Extents say where the file has no holes.
	Memory *Memory
	// Segments say where the ranges of Memory are in the file.
	Segments []Segment
	// CR3 are the page-table registers of the guest's processors, where the file
	// has them: for Options.
	CR3 []uint64

	data []byte
	file *os.File
}

// OpenRaw opens a file that is a guest's RAM and nothing else, laid out as
// ParseLayout says. The error wraps ErrMemory, ErrFormat or what the system
// said.
func OpenRaw(path, layout string) (*File, error) {
	return open(path, func(f *File) error {
		if len(f.data)%PageSize != 0 {
			return fmt.Errorf("%w: %d bytes are not whole pages", ErrFormat, len(f.data))
		}
		segments, err := ParseLayout(layout, uint64(len(f.data)))
		f.Segments = segments
		return err
	})
}

// OpenELF opens an ELF core of a guest, such as QEMU's dump-guest-memory or
// virsh dump --memory-only make. The error wraps ErrMemory, ErrFormat or what
// the system said.
func OpenELF(path string) (*File, error) {
	return open(path, (*File).readELF)
}

// IsELF says whether a file begins as an ELF file does.
func IsELF(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	magic := make([]byte, 4)
	_, err = io.ReadFull(f, magic)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil
	}
	return string(magic) == "\x7fELF", err
}

// open maps a file, has parse fill in Segments and makes the Memory of them.
func open(path string, parse func(*File) error) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f := &File{file: file}
	if err := f.mmap(parse); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func (f *File) mmap(parse func(*File) error) error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if !info.Mode().IsRegular() || size == 0 || size > maxBytes {
		return fmt.Errorf("%w: it has %d bytes; a regular file of 1 to %d is wanted", ErrFormat, size, int64(maxBytes))
	}
	f.data, err = unix.Mmap(int(f.file.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %d bytes: %w", size, err)
	}
	if err := guarded(func() error { return parse(f) }); err != nil {
		return err
	}
	return f.makeMemory()
}

// makeMemory makes the Memory of the segments.
func (f *File) makeMemory() error {
	slices.SortFunc(f.Segments, func(a, b Segment) int { return cmp.Compare(a.GPA, b.GPA) })
	extents, err := dataExtents(f.file, uint64(len(f.data)))
	if err != nil {
		return err
	}
	ranges := make([]Range, len(f.Segments))
	for i, s := range f.Segments {
		ranges[i] = Range{GPA: s.GPA, Data: f.data[s.Off : s.Off+s.Len], Extents: clip(extents, s)}
	}
	f.Memory, err = NewMemory(ranges)
	return err
}

// Close unmaps the file: nothing may use Memory any more.
func (f *File) Close() error {
	var err error
	if f.data != nil {
		err = unix.Munmap(f.data)
		f.data = nil
	}
	return errors.Join(err, f.file.Close())
}

// dataExtents returns the parts of a file that are not holes.
func dataExtents(file *os.File, size uint64) ([]Extent, error) {
	var extents []Extent
	for off := uint64(0); off < size; {
		data, err := unix.Seek(int(file.Fd()), int64(off), unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // a hole to the end
			return extents, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look for holes: %w", err)
		}
		hole, err := unix.Seek(int(file.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("look for holes: %w", err)
		}
		extents = append(extents, Extent{uint64(data), uint64(hole - data)})
		off = uint64(hole)
	}
	return extents, nil
}

// clip returns the extents of a file as extents of a segment's data, made larger
// to whole pages. It is never nil.
func clip(extents []Extent, s Segment) []Extent {
	clipped := []Extent{}
	var done uint64
	for _, e := range extents {
		begin, end := max(e.Off, s.Off), min(e.Off+e.Len, s.Off+s.Len)
		if begin >= end {
			continue
		}
		first := max(done, (begin-s.Off)&^(PageSize-1))
		done = (end - s.Off + PageSize - 1) &^ (PageSize - 1)
		if first < done {
			clipped = append(clipped, Extent{first, done - first})
		}
	}
	return clipped
}
