package guestmem

import (
	"errors"
	"fmt"
)

// kernelMap is where x86-64 maps the kernel's image, less its place in physical
// memory: __START_KERNEL_map in arch/x86/include/asm/page_64_types.h.
const kernelMap = 0xffffffff80000000

// sectionBits is what all x86-64 kernels have; those before 5.13 do not put it
// into the note. arch/x86/include/asm/sparsemem.h.
const (
	sectionBits    = 27
	sectionBitsKey = "NUMBER(SECTION_SIZE_BITS)"
)

// Bounds of what a note may claim. They are far beyond what any kernel has; what
// they guard is time and memory here.
const (
	maxStruct   = 1 << 20 // bytes of one structure, or an offset in it
	maxOrders   = 20      // sizes of free blocks
	maxNodes    = 4096    // NUMA nodes
	maxZones    = 16      // zones of a node
	maxSections = 1 << 26 // entries of mem_section's first level
)

// A kernel is what a note says about the structures that lead to the free
// pages, checked for being possible, not yet for being true.
type kernel struct {
	release string
	root    uint64 // guest-physical address of the top page table
	levels  int    // of page tables: 4 or 5

	swapperPgDir, memSection, nodeData uint64 // virtual addresses
	nodes                              uint64 // pointers at nodeData; 0 if the one node is there itself

	sectionBits                                      uint64 // log2 of the bytes of a section
	roots                                            uint64 // pointers at memSection
	sectionSize, sectionMap                          uint64
	pageSize, pageMapcount, pagePrivate              uint64
	nodeSize, nodeZones, nodeNrZones                 uint64
	zoneSize, zoneFreeArea, zoneVMStat, zoneSpanned  uint64
	freeAreaSize, orders, statFreePages, lists, list uint64

	buddy uint32 // what _mapcount holds in the head of a free block
}

// readKernel takes a kernel from its note.
func readKernel(f facts) (*kernel, error) {
	k := &kernel{release: f["OSRELEASE"]}
	if len(k.release) > 64 {
		return nil, errors.New("the note's OSRELEASE is longer than a kernel's release can be")
	}
	err := errors.Join(k.readSizes(f), k.readSymbols(f), k.readPaging(f))
	if err != nil {
		return nil, err
	}
	return k, k.check()
}

func (k *kernel) readSizes(f facts) error {
	k.sectionBits = sectionBits
	if _, ok := f[sectionBitsKey]; ok {
		n, err := f.length(sectionBitsKey, 40)
		if err != nil {
			return err
		}
		k.sectionBits = n
	}
	for _, want := range []struct {
		key   string
		value *uint64
		limit int64
	}{
		{"LENGTH(mem_section)", &k.roots, maxSections},
		{"SIZE(mem_section)", &k.sectionSize, PageSize},
		{"OFFSET(mem_section.section_mem_map)", &k.sectionMap, PageSize},
		{"SIZE(page)", &k.pageSize, PageSize},
		{"OFFSET(page._mapcount)", &k.pageMapcount, PageSize},
		{"OFFSET(page.private)", &k.pagePrivate, PageSize},
		{"SIZE(pglist_data)", &k.nodeSize, 16 * maxStruct},
		{"OFFSET(pglist_data.node_zones)", &k.nodeZones, 16 * maxStruct},
		{"OFFSET(pglist_data.nr_zones)", &k.nodeNrZones, 16 * maxStruct},
		{"SIZE(zone)", &k.zoneSize, maxStruct},
		{"OFFSET(zone.free_area)", &k.zoneFreeArea, maxStruct},
		{"OFFSET(zone.vm_stat)", &k.zoneVMStat, maxStruct},
		{"OFFSET(zone.spanned_pages)", &k.zoneSpanned, maxStruct},
		{"SIZE(free_area)", &k.freeAreaSize, maxStruct},
		{"LENGTH(zone.free_area)", &k.orders, maxOrders},
		{"LENGTH(free_area.free_list)", &k.lists, maxStruct},
		{"SIZE(list_head)", &k.list, maxStruct},
		{"NUMBER(NR_FREE_PAGES)", &k.statFreePages, 1024},
	} {
		n, err := f.length(want.key, want.limit)
		if err != nil {
			return err
		}
		*want.value = n
	}
	return nil
}

func (k *kernel) readSymbols(f facts) (err error) {
	if k.swapperPgDir, err = f.symbol("swapper_pg_dir"); err != nil {
		return err
	}
	if k.memSection, err = f.symbol("mem_section"); err != nil {
		return err
	}
	if k.nodeData, err = f.symbol("node_data"); err != nil {
		// A kernel without NUMA has one node, under another name.
		k.nodeData, err = f.symbol("contig_page_data")
		return err
	}
	k.nodes, err = f.length("LENGTH(node_data)", maxNodes)
	return err
}

func (k *kernel) readPaging(f facts) error {
	if size, err := f.number("PAGESIZE"); err != nil || size != PageSize {
		return fmt.Errorf("the guest's pages have %d bytes, not %d", size, PageSize)
	}
	if sme, err := f.number("NUMBER(sme_mask)"); err == nil && sme != 0 {
		return errors.New("the guest's memory is encrypted")
	}
	physBase, err := f.number("NUMBER(phys_base)")
	if err != nil {
		return err
	}
	k.root = k.swapperPgDir - kernelMap + uint64(physBase)
	if k.swapperPgDir < kernelMap || k.root >= maxGPA || k.root%PageSize != 0 {
		return fmt.Errorf("the top page table at %#x (virtual) is at no possible place", k.swapperPgDir)
	}
	k.levels = 4
	if five, err := f.number("NUMBER(pgtable_l5_enabled)"); err == nil && five == 1 {
		k.levels = 5
	}
	buddy, err := f.number("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)")
	k.buddy = uint32(buddy) // printed with or without a sign
	return err
}

// check refuses structures that cannot be, so that what follows need not ask.
func (k *kernel) check() error {
	fits := func(off, n, size uint64) bool { return off <= size && n <= size-off }
	switch {
	case k.sectionBits < 21:
		return fmt.Errorf("sections of 2^%d bytes are too small", k.sectionBits)
	case k.sectionSize == 0 || !fits(k.sectionMap, 8, k.sectionSize):
		return errors.New("mem_section has an impossible layout")
	case k.pageSize < 16 || k.pageMapcount%4 != 0 || k.pagePrivate%8 != 0 || k.pageSize%8 != 0 ||
		!fits(k.pageMapcount, 4, k.pageSize) || !fits(k.pagePrivate, 8, k.pageSize):
		return errors.New("struct page has an impossible layout")
	case !fits(k.nodeNrZones, 4, k.nodeSize) || !fits(k.nodeZones, k.zoneSize, k.nodeSize):
		return errors.New("struct pglist_data has an impossible layout")
	case k.orders == 0 || !fits(k.zoneFreeArea, k.orders*k.freeAreaSize, k.zoneSize) ||
		!fits(k.zoneVMStat, 8*(k.statFreePages+1), k.zoneSize) || !fits(k.zoneSpanned, 8, k.zoneSize):
		return errors.New("struct zone has an impossible layout")
	case k.freeAreaSize != k.lists*k.list+8:
		// The count of free blocks follows the lists and ends the structure.
		return errors.New("struct free_area has an unknown layout")
	}
	return nil
}
