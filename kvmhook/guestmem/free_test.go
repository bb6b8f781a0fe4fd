package guestmem

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFreePages holds what is found in guests that are as they should be.
func TestFreePages(t *testing.T) {
	tests := map[string]func(s *synthetic){
		"four levels":          func(s *synthetic) {},
		"five levels":          func(s *synthetic) { s.levels = 5 },
		"value of 6.12":        func(s *synthetic) { s.buddy = -268435456 },
		"value without a sign": func(s *synthetic) { s.buddy = 0xf0000000 },
		"no NUMA":              func(s *synthetic) { s.contig = true },
		"odd struct page":      func(s *synthetic) { s.structSz = 56 },
		"large struct page":    func(s *synthetic) { s.structSz = 80 },
		"large pages": func(s *synthetic) {
			s.ranges, s.large, s.largeAt = [][2]uint64{{0, 8 << 20}}, true, 2<<20
			s.free = []block{{4 << 20, 10}, {0x3000, 0}}
		},
		"nothing free": func(s *synthetic) { s.free = nil },
		"range at an odd page": func(s *synthetic) {
			s.ranges = [][2]uint64{{0, 8<<20 - 4096*3}, {4<<30 - 4096, 4<<20 + 4096}}
			s.free = []block{{4 << 20, 9}, {0x3000, 0}, {4<<30 - 4096, 0}, {4 << 30, 5}}
		},
		"neighbouring ranges":    func(s *synthetic) { s.ranges = [][2]uint64{{0, 5 << 20}, {5 << 20, 3 << 20}, {4 << 30, 4 << 20}} },
		"a block is on its way":  nil, // below
		"one note in two places": nil,
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			s := small()
			if change != nil {
				change(s)
			}
			s.build(t)
			switch name {
			case "a block is on its way":
				s.count(2, 4, 1)
				s.count(0, 2, 1)
			case "one note in two places":
				s.putNote(s.alloc(2))
			}
			m := s.memory(t)
			set, r, err := FreePages(t.Context(), m, Options{})
			if err != nil || !r.Trusted {
				t.Fatalf("%+v, %v", r, err)
			}
			if want := s.want(m); !set.equal(want) {
				t.Errorf("%d pages, want %d", set.Count(), want.Count())
			}
			if r.Free != set.Count() || r.Levels != s.levels || r.Kernel != "6.66.0-synthetic" || r.Total != m.Pages() {
				t.Errorf("report %+v", r)
			}
		})
	}
}

// TestTrust breaks one rule at a time: the set must be nil, and the report must
// say what was wrong.
func TestTrust(t *testing.T) {
	free := func(s *synthetic, gpa uint64) { // also in the zone's count
		s.setFree(gpa, 0)
		s.count(2, 0, 1)
	}
	edit := func(old, new string) func(s *synthetic) *Options {
		return func(s *synthetic) *Options {
			text := strings.Replace(s.text(), old, new, 1)
			if text == s.text() {
				panic("nothing to replace: " + old)
			}
			putNoteText(s.at(s.noteGPA), text)
			return nil
		}
	}
	tests := map[string]struct {
		damage func(s *synthetic) *Options
		why    string
	}{
		"no note":             {func(s *synthetic) *Options { clear(s.at(s.noteGPA)[:4096]); return nil }, "no VMCOREINFO note"},
		"note's page is free": {func(s *synthetic) *Options { free(s, s.noteGPA); return nil }, "its own page is free"},
		"note's last page is free": {func(s *synthetic) *Options {
			s.lines = append(s.lines, strings.Repeat("x", noteMaxText-len(s.text())-1))
			s.putNote(s.noteGPA)
			free(s, s.noteGPA+4096)
			return nil
		}, "its own page is free"},
		"top table is free":  {func(s *synthetic) *Options { free(s, s.root); return nil }, "left behind"},
		"a table is free":    {func(s *synthetic) *Options { free(s, s.tables[len(s.tables)-1]); return nil }, "left behind"},
		"memory map is free": {func(s *synthetic) *Options { free(s, s.mapGPA); return nil }, "left behind"},
		"zones are free":     {func(s *synthetic) *Options { free(s, s.nodeGPA); return nil }, "left behind"},
		"zones count more":   {func(s *synthetic) *Options { s.count(2, 4, 3); return nil }, "3 blocks differ"},
		"zones count less":   {func(s *synthetic) *Options { s.count(2, 10, -1); s.count(2, 0, 2); return nil }, "3 blocks differ"},
		"zones count absurdly": {func(s *synthetic) *Options { s.count(2, 10, 1<<40); return nil },
			"claims to have 1099511627777 free blocks"},
		"zones without end": {func(s *synthetic) *Options { s.at(s.nodeGPA + synNrZones)[0] = 5; return nil }, "claims to have 5 zones"},
		"zones are empty": {func(s *synthetic) *Options {
			s.put64(s.zone(0)+synSpanned, 0)
			s.put64(s.zone(2)+synSpanned, 0)
			return nil
		}, "no pages"},
		"order":               {func(s *synthetic) *Options { s.setFree(2<<20, 11); return nil }, "order 11"},
		"order without end":   {func(s *synthetic) *Options { s.setFree(2<<20, 1<<63); return nil }, "free block of order"},
		"alignment":           {func(s *synthetic) *Options { s.setFree(0x9000, 1); return nil }, "impossible place"},
		"block beyond RAM":    {func(s *synthetic) *Options { s.setFree(4<<30+4<<20-0x1000*0x200, 10); return nil }, "impossible place"},
		"other free mark":     {edit("VALUE)=-129", "VALUE)=-130"), "blocks differ"},
		"wrong phys_base":     {edit("phys_base)=", "phys_base)=4096\nX="), ""},
		"phys_base far away":  {edit("phys_base)=", "phys_base)=9223372036854771712\nX="), "no possible place"},
		"levels":              {edit("l5_enabled)=0", "l5_enabled)=1"), ""},
		"encrypted":           {edit("sme_mask)=0", "sme_mask)=140737488355328"), "encrypted"},
		"page size":           {edit("PAGESIZE=4096", "PAGESIZE=65536"), "not 4096"},
		"section size":        {edit("SIZE_BITS)=27", "SIZE_BITS)=12"), "too small"},
		"too many orders":     {edit("LENGTH(zone.free_area)=11", "LENGTH(zone.free_area)=21"), "beyond 20"},
		"negative offset":     {edit("OFFSET(page.private)=32", "OFFSET(page.private)=-8"), "beyond"},
		"offset out of page":  {edit("OFFSET(page.private)=32", "OFFSET(page.private)=64"), "struct page"},
		"no size":             {edit("SIZE(mem_section)=32", "SIZE(mem_section)=0"), "mem_section"},
		"free_area":           {edit("LENGTH(free_area.free_list)=3", "LENGTH(free_area.free_list)=4"), "unknown layout"},
		"zone too small":      {edit("SIZE(zone)=1024", "SIZE(zone)=128"), "struct zone"},
		"node too small":      {edit("SIZE(pglist_data)=", "SIZE(pglist_data)=4\nX="), "struct pglist_data"},
		"no number":           {edit("SIZE(page)=64", "SIZE(page)=sixty-four"), "sixty-four"},
		"no symbol":           {edit("SYMBOL(mem_section)=", "SYMBOL(mem_section)=hello"), "hello"},
		"user address":        {edit("SYMBOL(mem_section)=ffff", "SYMBOL(mem_section)=7fff"), "not an address of the kernel"},
		"not mapped":          {edit("SYMBOL(mem_section)=ffff888", "SYMBOL(mem_section)=ffff889"), "not mapped"},
		"release":             {edit("6.66.0", strings.Repeat("6", 70)), "longer"},
		"no memory map":       {func(s *synthetic) *Options { s.put64(s.root+synMemmap>>39&511*8, 0); return nil }, "not mapped"},
		"tables beyond RAM":   {func(s *synthetic) *Options { s.put64(s.root+511*8, 1<<40|ptePresent); return nil }, "outside of RAM"},
		"tables in a circle":  {func(s *synthetic) *Options { s.put64(s.root+511*8, s.root|ptePresent); return nil }, ""},
		"another CR3":         {func(s *synthetic) *Options { return &Options{CR3: []uint64{0x5000}} }, "CR3"},
		"several unlike CR3s": {func(s *synthetic) *Options { return &Options{CR3: []uint64{0, 0x5000, ^uint64(0)}} }, "CR3"},
		"many notes": {func(s *synthetic) *Options {
			for i := range uint64(maxNotes) {
				putNoteText(s.at(6<<20+i*0x4000), "OSRELEASE=6."+strings.Repeat("1", int(i)))
			}
			return nil
		}, "more than"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := small().build(t)
			o := test.damage(s)
			if o == nil {
				o = &Options{}
			}
			set, r, err := FreePages(t.Context(), s.memory(t), *o)
			if err != nil || set != nil || r.Trusted {
				t.Fatalf("%d pages, %+v, %v", set.Count(), r, err)
			}
			if !strings.Contains(r.Why, test.why) || r.Why == "" {
				t.Errorf("why: %q, want something with %q", r.Why, test.why)
			}
		})
	}
}

// TestBlockBeyondRAM holds that a free block that RAM has only the beginning of
// is not believed, at the end of RAM and where two ranges have a gap.
func TestBlockBeyondRAM(t *testing.T) {
	for _, gpa := range []uint64{8<<20 - 0x8000, 4<<30 + 4<<20 - 0x8000} {
		s := small()
		s.ranges = [][2]uint64{{0, 8<<20 - 0x3000}, {4 << 30, 4<<20 - 0x1000}}
		s.free = []block{{gpa, 3}}
		s.build(t)
		set, r, err := FreePages(t.Context(), s.memory(t), Options{})
		if err != nil || set != nil || !strings.Contains(r.Why, "outside of RAM") {
			t.Errorf("at %#x: %+v, %v", gpa, r, err)
		}
	}
}

// TestMissingLines leaves out each line of the note that the walk needs.
func TestMissingLines(t *testing.T) {
	optional := []string{"NUMBER(sme_mask)", "NUMBER(SECTION_SIZE_BITS)", "NUMBER(pgtable_l5_enabled)"}
	s := small().build(t)
	m := s.memory(t)
	lines := strings.SplitAfter(strings.TrimSuffix(s.text(), "\n"), "\n")
	for i, line := range lines[1:] {
		key, _, _ := strings.Cut(line, "=")
		putNoteText(s.at(s.noteGPA), strings.Join(append(append([]string{}, lines[:i+1]...), lines[i+2:]...), ""))
		set, r, err := FreePages(t.Context(), m, Options{})
		if err != nil {
			t.Fatal(err)
		}
		wanted := false
		for _, o := range optional {
			wanted = wanted || o == key
		}
		if (set != nil) != wanted {
			t.Errorf("without %s: %+v", key, r)
		}
	}
}

// TestCR3 holds that a processor's own tables confirm a note, whatever flags
// CR3 has and whichever of the two tables of page-table isolation it names.
func TestCR3(t *testing.T) {
	s := small()
	s.base = 1<<20 + 0x2000
	s.build(t)
	m := s.memory(t)
	process := s.alloc(1)
	if process&PageSize != 0 {
		process = s.alloc(1)
	}
	copy(s.at(process)[2048:4096], s.at(s.root)[2048:4096]) // the kernel's half
	for name, cr3 := range map[string][]uint64{
		"kernel's":            {s.root},
		"process":             {process},
		"flags":               {process | 0xfff&^PageSize | 1<<63},
		"user half":           {process | PageSize},
		"one of several":      {0, 0x4000, process},
		"processors that are": {0, 0},
	} {
		if set, r, err := FreePages(t.Context(), m, Options{CR3: cr3}); set == nil || err != nil {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// TestTwoKernels holds that of two notes that look true none is believed, unless
// they agree, and that one that was left behind does not count.
func TestTwoKernels(t *testing.T) {
	first := small().build(t)
	second := small()
	second.mem, second.base = first.mem, 3<<20
	t.Run("they agree", func(t *testing.T) {
		second.build(t)
		set, r, err := FreePages(t.Context(), first.memory(t), Options{})
		if err != nil || set == nil || r.Notes != 2 {
			t.Fatalf("%+v, %v", r, err)
		}
	})
	t.Run("they disagree", func(t *testing.T) {
		second.setFree(0x20000, 0)
		second.count(0, 0, 1)
		set, r, err := FreePages(t.Context(), first.memory(t), Options{})
		if err != nil || set != nil || !strings.Contains(r.Why, "disagree") {
			t.Fatalf("%+v, %v", r, err)
		}
	})
	t.Run("CR3 decides", func(t *testing.T) {
		m := first.memory(t)
		set, r, err := FreePages(t.Context(), m, Options{CR3: []uint64{first.root}})
		if err != nil || set == nil || !set.equal(first.want(m)) {
			t.Fatalf("%+v, %v", r, err)
		}
	})
	t.Run("one was left behind", func(t *testing.T) {
		second.setFree(second.mapGPA, 0)
		second.count(2, 0, 1)
		m := first.memory(t)
		set, r, err := FreePages(t.Context(), m, Options{})
		if err != nil || set == nil || !set.equal(first.want(m)) {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}

// TestPoison holds that pages are kept that the guest would miss.
func TestPoison(t *testing.T) {
	s := small().build(t)
	m := s.memory(t)
	fill := func(gpa uint64) { copy(s.at(gpa), bytes.Repeat([]byte{0xaa}, PageSize)) }
	fill(4<<20 + 7*PageSize)
	fill(4<<30 + 3*PageSize)
	copy(s.at(4<<20+9*PageSize), bytes.Repeat([]byte{0xaa}, PageSize-1)) // not full
	set, r, err := FreePages(t.Context(), m, Options{})
	if err != nil || set == nil || r.Poisoned != 2 || r.PagePoison {
		t.Fatalf("%+v, %v", r, err)
	}
	want := s.want(m)
	want.Remove(4<<20>>pageShift + 7)
	want.Remove(8<<20>>pageShift + 3)
	if !set.equal(want) {
		t.Errorf("%d pages in the set, want %d", set.Count(), want.Count())
	}
	for _, b := range s.free {
		for i := range uint64(1) << b.order {
			fill(b.gpa + i*PageSize)
		}
	}
	set, r, err = FreePages(t.Context(), m, Options{})
	if err != nil || set != nil || !r.PagePoison || r.Trusted || r.Poisoned != r.Free {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestCancel holds that the search ends with its context, with an error.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	set, r, err := FreePages(ctx, small().build(t).memory(t), Options{})
	if !errors.Is(err, context.Canceled) || set != nil || r.Trusted {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestShortenedFile holds that memory that goes away is an error, not a crash.
func TestShortenedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ram")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(data)
	if err := os.Truncate(path, 512<<10); err != nil {
		t.Fatal(err)
	}
	m, err := NewMemory([]Range{{Data: data}})
	if err != nil {
		t.Fatal(err)
	}
	if _, r, err := FreePages(t.Context(), m, Options{}); !errors.Is(err, ErrFault) {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestHoles holds that holes are not looked at where every page is, and are read
// as they are elsewhere.
func TestHoles(t *testing.T) {
	s := small().build(t)
	ranges := s.memory(t).Ranges()
	// What is left out holds a poisoned page and a note without sense.
	copy(s.at(4<<20), bytes.Repeat([]byte{0xaa}, PageSize))
	putNoteText(s.at(5<<20), "OSRELEASE=6.0\n")
	ranges[0].Extents = []Extent{{0, 4 << 20}}
	ranges[1].Extents = []Extent{}
	m, err := NewMemory(ranges)
	if err != nil {
		t.Fatal(err)
	}
	set, r, err := FreePages(t.Context(), m, Options{})
	if err != nil || !set.equal(s.want(m)) || r.Notes != 1 || r.Poisoned != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
}
