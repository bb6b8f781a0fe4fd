package guestmem

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
)

// Linux, include/linux/mmzone.h: what the low bits of section_mem_map mean. The
// map itself begins at a page, so that no flag can reach into its address.
const (
	sectionHasMap  = 1 << 1
	sectionMapMask = ^uint64(PageSize - 1)
)

// A span is a part of a section that is RAM: pages pfn to end-1.
type span struct{ pfn, end uint64 }

// blocks is what the memory map says.
type blocks struct {
	set  *PageSet
	used *PageSet // pages that this rests on

	mu    sync.Mutex
	heads [maxOrders]uint64 // free blocks by order
	pages uint64            // that the memory map describes
}

// readBlocks walks over the memory map of all RAM and collects the free blocks.
// What it reads is added to used.
func readBlocks(ctx context.Context, m *Memory, k *kernel, used *PageSet) (*blocks, error) {
	var spans []span
	perSection := uint64(1) << (k.sectionBits - pageShift)
	for _, r := range m.ranges {
		pfn, end := r.GPA>>pageShift, (r.GPA+uint64(len(r.Data)))>>pageShift
		for pfn < end {
			next := min(end, (pfn/perSection+1)*perSection)
			spans = append(spans, span{pfn, next})
			pfn = next
		}
	}
	all := &blocks{set: NewPageSet(m.Pages()), used: used}
	err := parallel(ctx, len(spans), func(i int) error {
		w := &blockWalk{m: m, k: k, t: newPageTables(m, k, all.used), set: all.set}
		if err := w.section(spans[i]); err != nil {
			return err
		}
		all.merge(w)
		return nil
	})
	return all, err
}

func (b *blocks) merge(w *blockWalk) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for order, n := range w.heads {
		b.heads[order] += n
	}
	b.pages += w.pages
}

// blockWalk collects the free blocks of one section.
type blockWalk struct {
	m     *Memory
	k     *kernel
	t     *pageTables
	set   *PageSet
	heads [maxOrders]uint64
	pages uint64
}

// section walks over the struct pages of a span.
func (w *blockWalk) section(s span) error {
	base, err := w.sectionMap(s.pfn << pageShift >> w.k.sectionBits)
	if err != nil || base == 0 {
		return err
	}
	for pfn := s.pfn; pfn < s.end; {
		pa, mapcount, err := w.t.mapped(base + pfn*w.k.pageSize + w.k.pageMapcount)
		if err != nil {
			return fmt.Errorf("memory map of page %#x: %w", pfn, err)
		}
		// All the structs whose field lies in this piece of the mapping.
		stop := min(s.end, pfn+1+uint64(len(mapcount)-4)/w.k.pageSize)
		w.t.use(pa, (stop-1-pfn)*w.k.pageSize+4)
		w.pages += stop - pfn
		for off := uint64(0); pfn < stop; {
			if binary.LittleEndian.Uint32(mapcount[off:]) != w.k.buddy {
				pfn, off = pfn+1, off+w.k.pageSize
				continue
			}
			n, err := w.block(base, pfn)
			if err != nil {
				return err
			}
			pfn, off = pfn+n, off+n*w.k.pageSize
		}
	}
	return nil
}

// sectionMap returns the address from which the struct page of page frame n is n
// structs away, or 0 if the section has none.
func (w *blockWalk) sectionMap(section uint64) (uint64, error) {
	perRoot := PageSize / w.k.sectionSize
	root := section / perRoot
	if root >= w.k.roots {
		return 0, nil
	}
	array, err := w.t.uint64(w.k.memSection + 8*root)
	if err != nil {
		return 0, fmt.Errorf("mem_section: %w", err)
	}
	if array == 0 {
		return 0, nil
	}
	value, err := w.t.uint64(array + section%perRoot*w.k.sectionSize + w.k.sectionMap)
	if err != nil {
		return 0, fmt.Errorf("section %d: %w", section, err)
	}
	if value&sectionHasMap == 0 {
		return 0, nil
	}
	return value & sectionMapMask, nil
}

// block adds the free block whose head is page frame pfn, and returns how many
// pages it has.
func (w *blockWalk) block(base, pfn uint64) (uint64, error) {
	order, err := w.t.uint64(base + pfn*w.k.pageSize + w.k.pagePrivate)
	if err != nil {
		return 0, fmt.Errorf("memory map of page %#x: %w", pfn, err)
	}
	if order >= w.k.orders {
		return 0, fmt.Errorf("page %#x claims to begin a free block of order %d, of %d that there are", pfn, order, w.k.orders)
	}
	n := uint64(1) << order
	if pfn%n != 0 {
		return 0, fmt.Errorf("page %#x claims to begin a free block of %d pages, at an impossible place", pfn, n)
	}
	first, ok := w.m.PageAt(pfn << pageShift)
	last, ok2 := w.m.PageAt((pfn + n - 1) << pageShift)
	if !ok || !ok2 || last-first != n-1 {
		return 0, fmt.Errorf("the free block of %d pages at page %#x reaches outside of RAM", n, pfn)
	}
	w.set.Add(first, n)
	w.heads[order]++
	return n, nil
}

// mapped returns the guest-physical address of a virtual one, and the bytes from
// there to the end of the piece that is mapped and in RAM, at least four.
func (t *pageTables) mapped(va uint64) (uint64, []byte, error) {
	pa, room, err := t.translate(va)
	if err != nil {
		return 0, nil, err
	}
	b := t.m.upTo(pa, room)
	if len(b) < 4 {
		return 0, nil, fmt.Errorf("%#x (physical %#x) is outside of RAM", va, pa)
	}
	return pa, b, nil
}
