package qemu

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// Block is a RAM block of a VM.
type Block struct {
	Name string
	Size int64 // bytes, a multiple of PageSize
	// Offset in bytes in the address space that all blocks make, one after the other. An image has the same.
	Offset int64
	// Addr is where the guest has it, if the stream says so (only with x-ignore-shared).
	Addr uint64
}

// State is a VM as its stream describes it, without its pages.
type State struct {
	Machine string // machine type with its version, "pc-i440fx-7.2"
	Blocks  []Block
	// IgnoresShared says that the stream leaves out RAM that is a shared file.
	IgnoresShared bool
	// config are the subsections of the configuration, other than the capabilities.
	config []subsection
	// Device is the device state: sections that only QEMU understands.
	Device []byte
	// Description of the device state, in JSON.
	Description []byte
}

type subsection struct {
	name    string
	version uint32
	data    []byte
}

// Size is the size of all blocks in bytes.
func (s *State) Size() int64 {
	if len(s.Blocks) == 0 {
		return 0
	}
	last := s.Blocks[len(s.Blocks)-1]
	return last.Offset + last.Size
}

// Pages is the number of pages of all blocks.
func (s *State) Pages() int64 { return s.Size() / PageSize }

// Block finds a block by name.
func (s *State) Block(name string) (Block, bool) {
	i := slices.IndexFunc(s.Blocks, func(b Block) bool { return b.Name == name })
	if i < 0 {
		return Block{}, false
	}
	return s.Blocks[i], true
}

// Marshal makes a migration stream without pages of it, which is how an image keeps the device state.
func (s *State) Marshal() []byte {
	p := s.appendHeader(nil)
	p = appendRAMStart(p, s.Blocks, nil)
	p = appendRAMEnd(p)
	p = append(p, s.Device...)
	p = append(p, typeEOF, typeDescription)
	p = binary.BigEndian.AppendUint32(p, uint32(len(s.Description)))
	return append(p, s.Description...)
}

// UnmarshalState reads what Marshal made.
func UnmarshalState(r io.Reader) (*State, error) {
	p := &parser{r: newReader(r, 1<<16), pages: noPages{}}
	if err := p.parse(); err != nil {
		return nil, fmt.Errorf("device state of QEMU: %w", err)
	}
	return &p.state, nil
}

// noPages refuses pages: a kept state has none.
type noPages struct{}

func (noPages) begin(*State) error       { return nil }
func (noPages) page(int64, []byte) error { return malformed("a page among the device state") }
func (noPages) zero(int64) error         { return malformed("a page among the device state") }
func (noPages) end() error               { return nil }

func (s *State) appendHeader(p []byte) []byte {
	p = binary.BigEndian.AppendUint32(p, streamMagic)
	p = binary.BigEndian.AppendUint32(p, streamVersion)
	p = append(p, typeConfiguration)
	p = binary.BigEndian.AppendUint32(p, uint32(len(s.Machine)))
	p = append(p, s.Machine...)
	for _, sub := range s.config {
		p = append(p, typeSubsection)
		p = appendName(p, sub.name)
		p = binary.BigEndian.AppendUint32(p, sub.version)
		p = append(p, sub.data...)
	}
	return p
}

func appendName(p []byte, name string) []byte {
	p = append(p, byte(len(name)))
	return append(p, name...)
}

// appendRAMStart begins the RAM section. pageSize, if not nil, gives the size of the pages that back a block at the
// destination; other sizes than PageSize are told it.
func appendRAMStart(p []byte, blocks []Block, pageSize func(Block) int64) []byte {
	p = append(p, typeSectionStart)
	p = binary.BigEndian.AppendUint32(p, ramSectionID)
	p = appendName(p, ramSection)
	p = binary.BigEndian.AppendUint32(p, 0) // instance
	p = binary.BigEndian.AppendUint32(p, ramSectionVersion)
	var total int64
	for _, b := range blocks {
		total += b.Size
	}
	p = binary.BigEndian.AppendUint64(p, uint64(total)|ramMemSize)
	for _, b := range blocks {
		p = appendName(p, b.Name)
		p = binary.BigEndian.AppendUint64(p, uint64(b.Size))
		if pageSize != nil && pageSize(b) != PageSize {
			p = binary.BigEndian.AppendUint64(p, uint64(pageSize(b)))
		}
	}
	return appendSectionEnd(p)
}

func appendRAMPart(p []byte) []byte {
	p = append(p, typeSectionPart)
	return binary.BigEndian.AppendUint32(p, ramSectionID)
}

// appendRAMEnd is the RAM section's last part, without pages.
func appendRAMEnd(p []byte) []byte {
	p = append(p, typeSectionEnd)
	p = binary.BigEndian.AppendUint32(p, ramSectionID)
	return appendSectionEnd(p)
}

// appendSectionEnd ends any part of the RAM section.
func appendSectionEnd(p []byte) []byte {
	p = binary.BigEndian.AppendUint64(p, ramEOS)
	p = append(p, typeFooter)
	return binary.BigEndian.AppendUint32(p, ramSectionID)
}

func appendCommand(p []byte, cmd uint16, data []byte) []byte {
	p = append(p, typeCommand)
	p = binary.BigEndian.AppendUint16(p, cmd)
	p = binary.BigEndian.AppendUint16(p, uint16(len(data)))
	return append(p, data...)
}

func appendPing(p []byte, n uint32) []byte {
	return appendCommand(p, cmdPing, binary.BigEndian.AppendUint32(nil, n))
}

// appendDiscard has the destination forget a block, all of whose pages come later.
func appendDiscard(p []byte, b Block) []byte {
	data := append([]byte{0}, byte(len(b.Name)))
	data = append(append(data, b.Name...), 0)
	data = binary.BigEndian.AppendUint64(data, 0)
	data = binary.BigEndian.AppendUint64(data, uint64(b.Size))
	return appendCommand(p, cmdDiscard, data)
}
