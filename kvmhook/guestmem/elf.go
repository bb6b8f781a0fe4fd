package guestmem

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
)

// What QEMU writes of a processor into a note called "QEMU": QEMUCPUState in
// target/i386/arch_dump.c. Version, size, 18 registers, ten segments of 24 bytes
// each, then CR0 to CR4.
const (
	qemuNoteName    = "QEMU"
	qemuNoteVersion = 1
	qemuNoteCR3     = 8 + 18*8 + 10*24 + 3*8
	maxNotesBytes   = 64 << 20 // of all notes: a processor takes less than 1 KiB
	maxProcessors   = 8192
)

// readELF takes the segments and the processors' registers from an ELF core.
func (f *File) readELF() error {
	if bytes.HasPrefix(f.data, []byte("KDUMP   ")) || bytes.HasPrefix(f.data, []byte("makedumpfile")) {
		return fmt.Errorf("%w: this is a compressed kdump file; make an ELF core (dump-guest-memory without a format option)", ErrFormat)
	}
	e, err := elf.NewFile(bytes.NewReader(f.data))
	if err != nil {
		return fmt.Errorf("%w: not an ELF core: %w", ErrFormat, err)
	}
	if e.Type != elf.ET_CORE || e.Machine != elf.EM_X86_64 || e.Class != elf.ELFCLASS64 {
		return fmt.Errorf("%w: an ELF file (%v, %v), but not the core of an x86-64 guest", ErrFormat, e.Type, e.Machine)
	}
	for _, p := range e.Progs {
		switch p.Type {
		case elf.PT_LOAD:
			if err := f.addLoad(p); err != nil {
				return err
			}
		case elf.PT_NOTE:
			if p.Filesz > maxNotesBytes {
				return fmt.Errorf("%w: notes of %d bytes", ErrFormat, p.Filesz)
			}
			notes, err := io.ReadAll(io.LimitReader(p.Open(), int64(p.Filesz)))
			if err != nil {
				return fmt.Errorf("%w: notes: %w", ErrFormat, err)
			}
			f.CR3 = append(f.CR3, qemuCR3(notes)...)
		}
	}
	return nil
}

func (f *File) addLoad(p *elf.Prog) error {
	size := uint64(len(f.data))
	switch {
	case p.Memsz == 0:
		return nil
	case p.Filesz != p.Memsz:
		return fmt.Errorf("%w: of the %d bytes of memory at %#x only %d are in the file; make a core that is whole", ErrFormat, p.Memsz, p.Paddr, p.Filesz)
	case p.Off > size || p.Filesz > size-p.Off:
		return fmt.Errorf("%w: %d bytes at %d are beyond the file's %d: it was cut short", ErrFormat, p.Filesz, p.Off, size)
	}
	f.Segments = append(f.Segments, Segment{GPA: p.Paddr, Off: p.Off, Len: p.Filesz})
	return nil
}

// qemuCR3 returns CR3 of each processor that the notes describe.
func qemuCR3(notes []byte) []uint64 {
	var found []uint64
	for len(notes) >= 12 && len(found) < maxProcessors {
		nameLen := uint64(binary.LittleEndian.Uint32(notes))
		descLen := uint64(binary.LittleEndian.Uint32(notes[4:]))
		desc := 12 + (nameLen+3)&^3
		end := desc + (descLen+3)&^3
		if desc+descLen > uint64(len(notes)) {
			return found
		}
		name := string(bytes.TrimRight(notes[12:12+nameLen], "\x00"))
		d := notes[desc : desc+descLen]
		if name == qemuNoteName && descLen >= qemuNoteCR3+8 && binary.LittleEndian.Uint32(d) == qemuNoteVersion {
			found = append(found, binary.LittleEndian.Uint64(d[qemuNoteCR3:]))
		}
		notes = notes[min(end, uint64(len(notes))):]
	}
	return found
}
