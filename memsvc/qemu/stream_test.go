package qemu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"
)

// testDescription is as much of a description as the parser looks at.
const testDescription = `{"page_size": 4096, "devices": []}`

// testState is a small VM: two blocks, the second of which is a ROM.
func testState() *State {
	return &State{
		Machine: "pc-i440fx-7.2",
		Blocks:  []Block{{Name: "pc.ram", Size: 300 * PageSize}, {Name: "pc.bios", Size: 7 * PageSize, Offset: 300 * PageSize}},
		config:  []subsection{{uuidSection, 1, bytes.Repeat([]byte{7}, 16)}},
		Device:  []byte("\x04device state, opaque \x00\x06\x00\x00\x00\x00 as it is"), Description: []byte(testDescription),
	}
}

// testRAM is the RAM of a VM, a third of whose pages are zero.
func testRAM(s *State, seed uint64) *memFile {
	f := &memFile{data: make([]byte, s.Size())}
	rng := rand.NewPCG(seed, 1)
	for page := range s.Pages() {
		if page%3 == 0 {
			continue
		}
		for i := int64(0); i < PageSize; i += 8 {
			binary.LittleEndian.PutUint64(f.data[page*PageSize+i:], rng.Uint64())
		}
	}
	return f
}

// streamWriter makes streams as a source does, and wrong ones.
type streamWriter struct {
	p   []byte
	ram uint32 // id of the section
}

func (w *streamWriter) u8(v byte)                      { w.p = append(w.p, v) }
func (w *streamWriter) u32(v uint32)                   { w.p = binary.BigEndian.AppendUint32(w.p, v) }
func (w *streamWriter) u64(v uint64)                   { w.p = binary.BigEndian.AppendUint64(w.p, v) }
func (w *streamWriter) name(s string)                  { w.p = appendName(w.p, s) }
func (w *streamWriter) head(s *State)                  { w.p = s.appendHeader(w.p) }
func (w *streamWriter) part(t byte)                    { w.u8(t); w.u32(w.ram) }
func (w *streamWriter) command(c uint16, data ...byte) { w.p = appendCommand(w.p, c, data) }

func (w *streamWriter) endPart() {
	w.u64(ramEOS)
	w.u8(typeFooter)
	w.u32(w.ram)
}

func (w *streamWriter) startOf(name string, version uint32) {
	w.u8(typeSectionStart)
	w.u32(w.ram)
	w.name(name)
	w.u32(0)
	w.u32(version)
}

func (w *streamWriter) start(s *State) {
	w.startOf(ramSection, ramSectionVersion)
	w.u64(uint64(s.Size()) | ramMemSize)
	for _, b := range s.Blocks {
		w.name(b.Name)
		w.u64(uint64(b.Size))
		if s.IgnoresShared {
			w.u64(b.Addr)
		}
	}
}

func (w *streamWriter) page(b Block, off int64, data []byte) {
	w.u64(uint64(off) | ramPage)
	w.name(b.Name)
	w.p = append(w.p, data...)
}

func (w *streamWriter) zero(b Block, off int64) {
	w.u64(uint64(off) | ramZero)
	w.name(b.Name)
	w.u8(0)
}

// pages sends all of a block.
func (w *streamWriter) pages(b Block, ram *memFile) {
	for off := int64(0); off < b.Size; off += PageSize {
		if p := ram.page((b.Offset + off) / PageSize); isZero(p) {
			w.zero(b, off)
		} else {
			w.page(b, off, p)
		}
	}
}

func (w *streamWriter) tail(s *State) {
	w.p = append(w.p, s.Device...)
	w.u8(typeEOF)
	w.u8(typeDescription)
	w.u32(uint32(len(s.Description)))
	w.p = append(w.p, s.Description...)
}

// testStream is a whole migration.
func testStream(s *State, ram *memFile) []byte {
	w := &streamWriter{ram: 2}
	w.head(s)
	w.start(s)
	w.endPart()
	w.part(typeSectionPart)
	for _, b := range s.Blocks {
		w.pages(b, ram)
	}
	w.endPart()
	w.part(typeSectionEnd)
	w.endPart()
	w.tail(s)
	return w.p
}

// pair is two ends of a connection.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "pair"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func sameState(a, b *State) error {
	switch {
	case a.Machine != b.Machine, fmt.Sprint(a.Blocks) != fmt.Sprint(b.Blocks):
		return fmt.Errorf("%s %v instead of %s %v", a.Machine, a.Blocks, b.Machine, b.Blocks)
	case !bytes.Equal(a.Device, b.Device), !bytes.Equal(a.Description, b.Description):
		return fmt.Errorf("device state %q %q instead of %q %q", a.Device, a.Description, b.Device, b.Description)
	case fmt.Sprint(a.config) != fmt.Sprint(b.config):
		return fmt.Errorf("configuration %v instead of %v", a.config, b.config)
	}
	return nil
}
