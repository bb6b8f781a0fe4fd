package guestmem

import (
	"bytes"
	"encoding/binary"
)

// What QEMU writes of a processor into an ELF note called "QEMU": QEMUCPUState in
// target/i386/arch_dump.c. Version, size, 18 registers, ten segments of 24 bytes
// each, then CR0 to CR4.
const (
	qemuNoteName    = "QEMU"
	qemuNoteVersion = 1
	qemuNoteCR3     = 8 + 18*8 + 10*24 + 3*8
	maxProcessors   = 8192
)

// QEMUCR3 returns the register CR3 of each processor that the notes (a segment
// PT_NOTE) of an ELF core made by QEMU describe: for [Options]. Notes of another
// kind, and what comes after a damaged one, are left out.
func QEMUCR3(notes []byte) []uint64 {
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
