package guestmem

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// Where the structures of the synthetic kernel have their fields. They are not
// those of any kernel, so that nothing is right by chance.
const (
	synPhysBase     = -0x800000 // the image is not where it was linked to be
	synMapcount     = 12
	synPrivate      = 32
	synSectionSize  = 32
	synSectionMap   = 8
	synZoneSize     = 1024
	synFreeArea     = 64
	synFreeAreaSize = 16*3 + 8
	synVMStat       = 900
	synSpanned      = 16
	synNrZones      = 8
	synNodeZones    = 128
	synNodeSize     = synNodeZones + 4*synZoneSize
	synOrders       = 11
	synMemmap       = 0xffffea0000000000 // bit 56 down are the same with five levels
	synDirect       = 0xffff888000000000
)

// A block is a free block of the synthetic guest.
type block struct {
	gpa   uint64
	order uint64
}

// synthetic describes a small guest that never ran: RAM with a note, page tables,
// a memory map and zones.
type synthetic struct {
	ranges   [][2]uint64 // address and bytes
	base     uint64      // where its own pages are taken from, upwards
	levels   int
	buddy    int64
	structSz uint64
	contig   bool // no NUMA
	large    bool // the memory map is mapped by a page of 2 MiB, at largeAt
	largeAt  uint64
	free     []block
	noteGap  uint64 // bytes left out before the note's page

	mem     [][]byte
	next    uint64
	root    uint64
	noteGPA uint64
	tables  []uint64
	mapGPA  uint64 // first page of the memory map
	nodeGPA uint64
	lines   []string
}

// small returns a guest of 8 MiB at 0 and 4 MiB at 4 GiB with four levels.
func small() *synthetic {
	return &synthetic{
		ranges: [][2]uint64{{0, 8 << 20}, {4 << 30, 4 << 20}},
		base:   1 << 20, levels: 4, buddy: -129, structSz: 64,
		free: []block{{4 << 20, 10}, {0x3000, 0}, {0x6000, 1}, {4 << 30, 5}, {4<<30 + 0x80000, 3}},
	}
}

// build makes the memory, unless it has been made by another guest's build.
func (s *synthetic) build(t testing.TB) *synthetic {
	t.Helper()
	if s.mem == nil {
		for _, r := range s.ranges {
			s.mem = append(s.mem, make([]byte, r[1]))
		}
	}
	s.next = s.base
	s.root = s.alloc(1)
	s.mapPage(s.rootVA(), s.root)
	s.buildMemmap()
	s.buildNode()
	s.next += s.noteGap
	s.noteGPA = s.alloc(2)
	s.putNote(s.noteGPA)
	return s
}

func (s *synthetic) memory(t testing.TB) *Memory {
	t.Helper()
	var ranges []Range
	for i, r := range s.ranges {
		ranges = append(ranges, Range{GPA: r[0], Data: s.mem[i]})
	}
	m, err := NewMemory(ranges)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// at returns the memory at an address.
func (s *synthetic) at(gpa uint64) []byte {
	for i, r := range s.ranges {
		if gpa >= r[0] && gpa < r[0]+r[1] {
			return s.mem[i][gpa-r[0]:]
		}
	}
	panic(fmt.Sprintf("no RAM at %#x", gpa))
}

func (s *synthetic) put64(gpa, v uint64) { binary.LittleEndian.PutUint64(s.at(gpa), v) }
func (s *synthetic) get64(gpa uint64) uint64 {
	return binary.LittleEndian.Uint64(s.at(gpa))
}

// alloc takes pages for the kernel.
func (s *synthetic) alloc(pages uint64) uint64 {
	gpa := s.next
	s.next += pages * PageSize
	clear(s.at(gpa)[:pages*PageSize])
	return gpa
}

// mapPage maps a page of 4 KiB, or of 2 MiB where large is set.
func (s *synthetic) mapPage(va, pa uint64) { s.mapAt(va, pa, 1) }

func (s *synthetic) mapAt(va, pa uint64, last int) {
	table := s.root
	for level := s.levels; ; level-- {
		entry := table + va>>(12+9*uint(level-1))&511*8
		if level == last {
			flags := uint64(ptePresent | 1<<63)
			if last > 1 {
				flags |= pteLarge
			}
			s.put64(entry, pa|flags)
			return
		}
		if s.get64(entry) == 0 {
			next := s.alloc(1)
			s.tables = append(s.tables, next)
			s.put64(entry, next|ptePresent)
		}
		table = s.get64(entry) & pteAddress
	}
}

// direct allocates a page that the kernel reaches through its direct map.
func (s *synthetic) direct(pages uint64) (va, gpa uint64) {
	gpa = s.alloc(pages)
	for i := range pages {
		s.mapPage(synDirect+gpa+i*PageSize, gpa+i*PageSize)
	}
	return synDirect + gpa, gpa
}

// buildMemmap makes the memory map: a struct page for each page of RAM, and the
// sections that lead there.
func (s *synthetic) buildMemmap() {
	rootsVA, roots := s.direct(1)
	if s.large {
		s.mapAt(synMemmap, s.largeAt, 2)
		s.mapGPA = s.largeAt
	}
	for _, r := range s.ranges {
		first, end := r[0]>>12*s.structSz&^4095, (r[0]+r[1])>>12*s.structSz
		for off := first; off < end && !s.large; off += PageSize {
			page := s.alloc(1)
			if off == first && r[0] == 0 {
				s.mapGPA = page
			}
			s.mapPage(synMemmap+off, page)
		}
		for section := r[0] >> 27; section <= (r[0]+r[1]-1)>>27; section++ {
			s.addSection(roots, section)
		}
	}
	for _, b := range s.free {
		s.setFree(b.gpa, b.order)
	}
	s.line("SYMBOL(mem_section)=%x", rootsVA)
}

// addSection puts a section into the table of tables at roots.
func (s *synthetic) addSection(roots, section uint64) {
	const perRoot = PageSize / synSectionSize
	root := roots + section/perRoot*8
	if s.get64(root) == 0 {
		array, _ := s.direct(1)
		s.put64(root, array)
	}
	array := s.get64(root) - synDirect
	s.put64(array+section%perRoot*synSectionSize+synSectionMap, synMemmap|sectionHasMap|1)
}

// setFree marks a page as the head of a free block, whatever is possible.
func (s *synthetic) setFree(gpa, order uint64) {
	// Fields of one struct may lie in different pages.
	binary.LittleEndian.PutUint32(s.at(s.fieldAt(gpa, synMapcount)), uint32(s.buddy))
	s.put64(s.fieldAt(gpa, synPrivate), order)
}

func (s *synthetic) fieldAt(gpa, off uint64) uint64 {
	va := synMemmap + gpa>>12*s.structSz + off
	page := s.translate(va &^ 4095)
	return page + va&4095
}

// translate is a second, plain implementation of the walk.
func (s *synthetic) translate(va uint64) uint64 {
	table := s.root
	for level := s.levels; ; level-- {
		shift := 12 + 9*uint(level-1)
		entry := s.get64(table + va>>shift&511*8)
		table = entry & pteAddress
		if level == 1 || level <= 3 && entry&pteLarge != 0 {
			return table + va&(1<<shift-1)
		}
	}
}

// buildNode makes the node with a DMA zone and a normal one: blocks below 1 MiB
// belong to the first.
func (s *synthetic) buildNode() {
	nodeVA, node := s.direct(3)
	s.nodeGPA = node
	binary.LittleEndian.PutUint32(s.at(node+synNrZones), 3)
	for zone, pages := range []uint64{256, 0, 4096} {
		s.put64(s.zone(zone)+synSpanned, pages)
	}
	for _, b := range s.free {
		zone := 2
		if b.gpa < 1<<20 {
			zone = 0
		}
		s.count(zone, b.order, 1)
	}
	if s.contig {
		s.line("SYMBOL(contig_page_data)=%x", nodeVA)
		return
	}
	arrayVA, array := s.direct(1)
	s.put64(array+8, nodeVA) // node 0 does not exist, node 1 does
	s.line("SYMBOL(node_data)=%x", arrayVA)
	s.line("LENGTH(node_data)=4")
}

func (s *synthetic) zone(i int) uint64 { return s.nodeGPA + synNodeZones + uint64(i)*synZoneSize }

// count adds free blocks to a zone's counts.
func (s *synthetic) count(zone int, order uint64, n int64) {
	area := s.zone(zone) + synFreeArea + order*synFreeAreaSize + synFreeAreaSize - 8
	s.put64(area, s.get64(area)+uint64(n))
	stat := s.zone(zone) + synVMStat + 8
	s.put64(stat, s.get64(stat)+uint64(n<<order))
}

func (s *synthetic) line(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

// text is the note's text.
func (s *synthetic) text() string {
	five := 0
	if s.levels == 5 {
		five = 1
	}
	fixed := fmt.Sprintf(`OSRELEASE=6.66.0-synthetic
PAGESIZE=4096
SYMBOL(swapper_pg_dir)=%x
NUMBER(phys_base)=%d
NUMBER(pgtable_l5_enabled)=%d
NUMBER(sme_mask)=0
NUMBER(SECTION_SIZE_BITS)=27
LENGTH(mem_section)=64
SIZE(mem_section)=%d
OFFSET(mem_section.section_mem_map)=%d
SIZE(page)=%d
OFFSET(page._mapcount)=%d
OFFSET(page.private)=%d
SIZE(pglist_data)=%d
OFFSET(pglist_data.node_zones)=%d
OFFSET(pglist_data.nr_zones)=%d
SIZE(zone)=%d
OFFSET(zone.free_area)=%d
OFFSET(zone.vm_stat)=%d
OFFSET(zone.spanned_pages)=%d
SIZE(free_area)=%d
LENGTH(zone.free_area)=%d
LENGTH(free_area.free_list)=3
SIZE(list_head)=16
NUMBER(NR_FREE_PAGES)=1
NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=%d
`, s.rootVA(), synPhysBase, five, synSectionSize, synSectionMap, s.structSz, synMapcount, synPrivate,
		synNodeSize, synNodeZones, synNrZones, synZoneSize, synFreeArea, synVMStat, synSpanned, synFreeAreaSize, synOrders, s.buddy)
	return fixed + strings.Join(s.lines, "\n") + "\n"
}

func (s *synthetic) putNote(gpa uint64) { putNoteText(s.at(gpa), s.text()) }

func putNoteText(b []byte, text string) {
	binary.LittleEndian.PutUint32(b, noteNameLen)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(text)))
	binary.LittleEndian.PutUint32(b[8:], 0)
	copy(b[12:], noteName)
	clear(b[noteHeader : 2*PageSize])
	copy(b[noteHeader:], text)
}

// want is the set of the free blocks.
func (s *synthetic) want(m *Memory) *PageSet {
	set := NewPageSet(m.Pages())
	for _, b := range s.free {
		page, ok := m.PageAt(b.gpa)
		if !ok {
			panic("a free block outside of RAM")
		}
		set.Add(page, 1<<b.order)
	}
	return set
}

// rootVA is the virtual address of the top page table.
func (s *synthetic) rootVA() uint64 { return kernelMap + s.root + -synPhysBase }
