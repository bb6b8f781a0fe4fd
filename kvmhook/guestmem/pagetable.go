package guestmem

import (
	"encoding/binary"
	"fmt"
)

// Bits of a page table entry: Intel SDM volume 3, section 5.5 (paging).
const (
	ptePresent = 1 << 0
	pteLarge   = 1 << 7 // at the levels that map 2 MiB and 1 GiB
	pteAddress = 1<<52 - PageSize
)

// pageTables translates the kernel's virtual addresses. It is not safe for
// concurrent use; each worker has its own.
type pageTables struct {
	m      *Memory
	root   uint64
	levels int
	// used collects the pages that a conclusion rests on: the tables, and what was
	// read. Were one of them free, its contents would be left over from something
	// that is no more.
	used *PageSet
	// The mapping found last, since neighbours are asked for next.
	va, pa, size uint64
}

func newPageTables(m *Memory, k *kernel, used *PageSet) *pageTables {
	return &pageTables{m: m, root: k.root, levels: k.levels, used: used}
}

// use notes that n bytes of RAM at gpa were believed.
func (t *pageTables) use(gpa, n uint64) {
	first, ok := t.m.PageAt(gpa)
	last, ok2 := t.m.PageAt(gpa + n - 1)
	if ok && ok2 {
		t.used.Add(first, last-first+1)
	}
}

// translate returns the guest-physical address of a virtual one, and how many
// bytes from it on are mapped in one piece.
func (t *pageTables) translate(va uint64) (pa, n uint64, err error) {
	if va-t.va >= t.size {
		if err := t.walk(va); err != nil {
			return 0, 0, err
		}
	}
	off := va - t.va
	return t.pa + off, t.size - off, nil
}

// walk finds the mapping of va. It ends after as many steps as there are levels.
func (t *pageTables) walk(va uint64) error {
	t.size = 0
	if int64(va) >= 0 {
		return fmt.Errorf("%#x is not an address of the kernel", va)
	}
	table := t.root
	for level := t.levels; level > 0; level-- {
		entries := t.m.bytes(table, PageSize)
		if entries == nil {
			return fmt.Errorf("page table of level %d at %#x is outside of RAM", level, table)
		}
		t.use(table, PageSize)
		shift := pageShift + 9*uint(level-1)
		entry := binary.LittleEndian.Uint64(entries[va>>shift&511*8:])
		if entry&ptePresent == 0 {
			return fmt.Errorf("%#x is not mapped (level %d)", va, level)
		}
		table = entry & pteAddress
		if level == 1 || (level <= 3 && entry&pteLarge != 0) {
			size := uint64(1) << shift
			t.va, t.pa, t.size = va&^(size-1), table&^(size-1), size
			return nil
		}
	}
	return nil // not reached: level 1 returns
}

// read returns n bytes, which must not cross a page, at a virtual address.
func (t *pageTables) read(va, n uint64) ([]byte, error) {
	pa, room, err := t.translate(va)
	if err != nil {
		return nil, err
	}
	b := t.m.bytes(pa, n)
	if b == nil || n > room {
		return nil, fmt.Errorf("%d bytes at %#x (physical %#x) are outside of RAM", n, va, pa)
	}
	t.use(pa, n)
	return b, nil
}

func (t *pageTables) uint64(va uint64) (uint64, error) {
	b, err := t.read(va, 8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (t *pageTables) uint32(va uint64) (uint32, error) {
	b, err := t.read(va, 4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}
