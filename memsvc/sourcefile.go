package memsvc

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"lsad/kvmhook/guestmem"
)

// ramBlock is the name of the only RAM block of an image that was made from a file.
const ramBlock = "ram"

// OpenSource opens a file with the memory of a guest: an ELF core, or else the bytes of RAM, which are in the guest
// where layout says (see Layouts; for an ELF core it must be ""). The file is the caller's to close.
func OpenSource(f *os.File, layout string) (*Source, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: it is not a regular file", f.Name(), ErrInvalid)
	}
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if string(magic[:]) == elf.ELFMAG {
		if layout != "" && layout != "auto" {
			return nil, fmt.Errorf("%s: %w: an ELF core says itself where its memory is; leave the layout out", f.Name(), ErrInvalid)
		}
		return openELF(f, info.Size())
	}
	return openRaw(f, info.Size(), layout)
}

func openRaw(f *os.File, size int64, layout string) (*Source, error) {
	all, err := Layouts(layout, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	s, err := NewSource("raw", []Block{{Name: ramBlock, Size: size, Ranges: all[0]}}, []Piece{{File: f, FileSize: size, Size: size}})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	s.Layouts = all[1:]
	return s, nil
}

// openELF makes one block of the core's segments, in order of their addresses.
func openELF(f *os.File, size int64) (*Source, error) {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w ELF core: %s", f.Name(), ErrInvalid, fmt.Sprintf(format, args...))
	}
	e, err := elf.NewFile(f)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, invalid("its headers do not end within the file's %d bytes; it was cut short", size)
	}
	if err != nil {
		return nil, invalid("%v", err)
	}
	if e.Type != elf.ET_CORE || e.Class != elf.ELFCLASS64 {
		return nil, invalid("it is %v %v, want a 64-bit core (dump-guest-memory without -w)", e.Class, e.Type)
	}
	var loads []*elf.Prog
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && p.Memsz > 0 {
			loads = append(loads, p)
		}
	}
	if len(loads) == 0 || len(loads) > MaxRanges {
		return nil, invalid("%d segments of memory, there can be 1 to %d", len(loads), MaxRanges)
	}
	slices.SortFunc(loads, func(a, b *elf.Prog) int { return cmp.Compare(a.Paddr, b.Paddr) })
	b := Block{Name: ramBlock}
	var pieces []Piece
	for _, p := range loads {
		if p.Memsz > MaxRAM || p.Filesz > p.Memsz {
			return nil, invalid("the segment at %#x has %d bytes, %d of them in the file; it is damaged", p.Paddr, p.Memsz, p.Filesz)
		}
		if p.Off > uint64(size) || p.Filesz > uint64(size)-p.Off {
			return nil, invalid("the segment at %#x has %d bytes at %d, the file has %d; it was cut short", p.Paddr, p.Filesz, p.Off, size)
		}
		b.Ranges = append(b.Ranges, Range{p.Paddr, int64(p.Memsz)})
		b.Size += int64(p.Memsz)
		pieces = append(pieces, Piece{File: f, Off: int64(p.Off), FileSize: int64(p.Filesz), Size: int64(p.Memsz)})
	}
	s, err := NewSource("elf", []Block{b}, pieces)
	if err != nil {
		return nil, invalid("%v", err)
	}
	s.CR3 = registersOf(e)
	return s, nil
}

// maxNotes bounds what is read of the notes of a core, in bytes: QEMU writes about 1 KiB for each processor.
const maxNotes = 16 << 20

// registersOf finds CR3 of the guest's processors. Without them free pages are found too.
func registersOf(e *elf.File) []uint64 {
	for _, p := range e.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > maxNotes {
			continue
		}
		if notes, err := io.ReadAll(p.Open()); err == nil {
			return guestmem.QEMUCR3(notes)
		}
	}
	return nil
}
