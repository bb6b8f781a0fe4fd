package guestmem

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// elfNote makes a note as ELF cores have them.
func elfNote(name string, desc []byte) []byte {
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(name)+1))
	out = binary.LittleEndian.AppendUint32(out, uint32(len(desc)))
	out = binary.LittleEndian.AppendUint32(out, 0)
	pad := func(b []byte) []byte { return append(b, make([]byte, (4-len(b)%4)%4)...) }
	return append(append(out, pad([]byte(name+"\x00"))...), pad(desc)...)
}

// qemuCPU makes what QEMU says of a processor.
func qemuCPU(version uint32, cr3 uint64) []byte {
	desc := make([]byte, 440)
	binary.LittleEndian.PutUint32(desc, version)
	binary.LittleEndian.PutUint64(desc[qemuNoteCR3:], cr3)
	return desc
}

func TestQEMUCR3(t *testing.T) {
	other := elfNote("CORE", make([]byte, 337))
	first, second := elfNote("QEMU", qemuCPU(1, 0x1000)), elfNote("QEMU", qemuCPU(1, 0x2000))
	for name, test := range map[string]struct {
		notes []byte
		want  []uint64
	}{
		"none":           {nil, nil},
		"two processors": {slices.Concat(other, other, first, second), []uint64{0x1000, 0x2000}},
		"version":        {slices.Concat(elfNote("QEMU", qemuCPU(2, 1)), first), []uint64{0x1000}},
		"too short":      {slices.Concat(elfNote("QEMU", qemuCPU(1, 1)[:qemuNoteCR3+7]), first), []uint64{0x1000}},
		"cut":            {slices.Concat(first, second)[:len(first)+100], []uint64{0x1000}},
		"length":         {slices.Concat(first, []byte{255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0}), []uint64{0x1000}},
	} {
		if got := QEMUCR3(test.notes); !slices.Equal(got, test.want) {
			t.Errorf("%s: %#x, want %#x", name, got, test.want)
		}
	}
}

func FuzzQEMUCR3(f *testing.F) {
	f.Add(slices.Concat(elfNote("CORE", make([]byte, 33)), elfNote("QEMU", qemuCPU(1, 0x1000))))
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'Q', 'E', 'M', 'U', 0})
	f.Fuzz(func(t *testing.T, notes []byte) {
		if got := QEMUCR3(notes); len(got) > len(notes)/qemuNoteCR3 {
			t.Errorf("%d processors in %d bytes", len(got), len(notes))
		}
	})
}

// FuzzReadKernel holds that what a note claims is refused or within the bounds
// that the walk relies on.
func FuzzReadKernel(f *testing.F) {
	text := small().build(f).text()
	f.Add(text)
	f.Add(strings.ReplaceAll(text, "=", "=-"))
	f.Add("OSRELEASE=6.1\nSIZE(page)=0x40\nSYMBOL(mem_section)=ffffffffffffffffff")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := readKernel(parseNote(text))
		if err != nil {
			return
		}
		if k.orders > maxOrders || k.pageSize == 0 || k.sectionSize == 0 || PageSize/k.sectionSize == 0 || k.sectionBits < pageShift ||
			k.pagePrivate+8 > k.pageSize || k.pageMapcount+4 > k.pageSize ||
			k.zoneFreeArea+k.orders*k.freeAreaSize > k.zoneSize || k.freeAreaSize < 8 || k.root%PageSize != 0 {
			t.Errorf("%+v", k)
		}
	})
}

// TestNoteAt holds what is a note and what only looks like one.
func TestNoteAt(t *testing.T) {
	page := make([]byte, 2*PageSize)
	putNoteText(page, "OSRELEASE=6.1\nPAGESIZE=4096\n")
	if text, ok := noteAt(page); !ok || text != "OSRELEASE=6.1\nPAGESIZE=4096\n" {
		t.Fatalf("%q, %v", text, ok)
	}
	for name, damage := range map[string]func(b []byte) []byte{
		"short":       func(b []byte) []byte { return b[:noteHeader-1] },
		"cut":         func(b []byte) []byte { return b[:noteHeader+5] },
		"name length": func(b []byte) []byte { b[0]++; return b },
		"type":        func(b []byte) []byte { b[8]++; return b },
		"name":        func(b []byte) []byte { b[12]++; return b },
		"first key":   func(b []byte) []byte { b[noteHeader]++; return b },
		"length":      func(b []byte) []byte { b[5] = 0x20; return b },
		"no text":     func(b []byte) []byte { b[4] = 0; return b },
	} {
		if text, ok := noteAt(damage(slices.Clone(page))); ok {
			t.Errorf("%s: %q", name, text)
		}
	}
}

// TestNewMemory holds what ranges are refused, and how pages are numbered.
func TestNewMemory(t *testing.T) {
	two := make([]byte, 2*PageSize)
	for name, ranges := range map[string][]Range{
		"none":            nil,
		"empty":           {{GPA: 0}},
		"part of a page":  {{Data: two[:PageSize+1]}},
		"address":         {{GPA: 1, Data: two}},
		"beyond":          {{GPA: maxGPA - PageSize, Data: two}},
		"overlap":         {{GPA: 0, Data: two}, {GPA: PageSize, Data: two}},
		"order":           {{GPA: 1 << 20, Data: two}, {GPA: 0, Data: two}},
		"extent":          {{Data: two, Extents: []Extent{{0, 3 * PageSize}}}},
		"extent's place":  {{Data: two, Extents: []Extent{{3 * PageSize, PageSize}}}},
		"part of extent":  {{Data: two, Extents: []Extent{{0, 100}}}},
		"extents overlap": {{Data: two, Extents: []Extent{{0, 2 * PageSize}, {PageSize, PageSize}}}},
		"extent wraps":    {{Data: two, Extents: []Extent{{PageSize, ^uint64(PageSize - 1)}}}},
	} {
		if _, err := NewMemory(ranges); err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
	m, err := NewMemory([]Range{{GPA: PageSize, Data: two}, {GPA: 1 << 32, Data: two}})
	if err != nil || m.Pages() != 4 {
		t.Fatalf("%d pages, %v", m.Pages(), err)
	}
	for page, gpa := range []uint64{PageSize, 2 * PageSize, 1 << 32, 1<<32 + PageSize} {
		if got := m.GPA(uint64(page)); got != gpa {
			t.Errorf("page %d is at %#x, not %#x", page, got, gpa)
		}
		if got, ok := m.PageAt(gpa + 17); !ok || got != uint64(page) {
			t.Errorf("%#x is in page %d (%v), not %d", gpa+17, got, ok, page)
		}
	}
	for _, gpa := range []uint64{0, 3 * PageSize, 1<<32 - 1, 1<<32 + 2*PageSize} {
		if page, ok := m.PageAt(gpa); ok {
			t.Errorf("%#x is in page %d, and there is no RAM", gpa, page)
		}
	}
	if b := m.bytes(2*PageSize, PageSize+1); b != nil {
		t.Error("bytes across the end of a range")
	}
}
