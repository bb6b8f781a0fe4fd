package guestmem

import (
	"context"
	"errors"
	"fmt"
)

// doubtError is why a note is not believed.
type doubtError struct{ err error }

func (e *doubtError) Error() string { return e.err.Error() }
func (e *doubtError) Unwrap() error { return e.err }

func doubt(format string, args ...any) error {
	return &doubtError{fmt.Errorf(format, args...)}
}

// A finding is what a note that passed led to.
type finding struct {
	kernel *kernel
	set    *PageSet
	free   uint64
	zones  zoneCounts
}

// judge follows a note to the free pages and applies the rules of trust. A
// doubtError says which one it broke.
func judge(ctx context.Context, m *Memory, n note, o Options) (*finding, error) {
	k, err := readKernel(parseNote(n.text))
	if err != nil {
		return nil, doubt("%w", err)
	}
	var zones zoneCounts
	used := NewPageSet(m.Pages())
	err = guarded(func() error {
		t := newPageTables(m, k, used)
		if err := checkRoot(t, k, o); err != nil {
			return err
		}
		zones, err = readZones(t, k)
		return err
	})
	if err == nil {
		var b *blocks
		if b, err = readBlocks(ctx, m, k, used); err == nil {
			return weigh(m, n, k, b, zones)
		}
	}
	if errors.Is(err, ErrFault) || ctx.Err() != nil {
		return nil, err
	}
	return nil, doubt("%w", err)
}

// checkRoot checks that the page tables map themselves to where the note says
// that they are, and that a processor uses tables that agree.
func checkRoot(t *pageTables, k *kernel, o Options) error {
	pa, _, err := t.translate(k.swapperPgDir)
	if err != nil {
		return fmt.Errorf("top page table: %w", err)
	}
	if pa != k.root {
		return fmt.Errorf("top page table: the note says that it is at %#x, the tables say %#x", k.root, pa)
	}
	sections, _, err := t.translate(k.memSection)
	if err != nil {
		return fmt.Errorf("mem_section: %w", err)
	}
	known := false
	for _, cr3 := range o.CR3 {
		if cr3 == 0 {
			continue
		}
		known = true
		// With page-table isolation a processor in user mode has tables without the
		// kernel; those with it are in the page before. The low bits are flags.
		for _, root := range []uint64{cr3 & pteAddress, cr3 & pteAddress &^ PageSize} {
			own := newPageTables(t.m, &kernel{root: root, levels: k.levels}, NewPageSet(t.m.Pages()))
			a, _, errA := own.translate(k.swapperPgDir)
			b, _, errB := own.translate(k.memSection)
			if errA == nil && errB == nil && a == pa && b == sections {
				return nil
			}
		}
	}
	if known {
		return errors.New("no processor's page tables (CR3) agree with the note's")
	}
	return nil
}

// weigh compares what was found with what the kernel counted, and asks whether
// what led there is itself in use.
func weigh(m *Memory, n note, k *kernel, b *blocks, zones zoneCounts) (*finding, error) {
	f := &finding{kernel: k, set: b.set, free: b.set.Count(), zones: zones}
	// A zone's lock is held while a block moves between its lists, so that a pause
	// can catch at most one block per zone half-way.
	if zones.zones == 0 {
		return nil, doubt("its zones have no pages")
	}
	if d := zones.differ(&b.heads); d > uint64(zones.zones) {
		return nil, doubt("its memory map has %d free pages and its zones count %d: %d blocks differ", f.free, zones.pages, d)
	}
	if page, both := b.used.common(b.set); both {
		return nil, doubt("what it leads to was left behind: the page at %#x is free", m.GPA(page))
	}
	for _, gpa := range n.gpas {
		if inUse(m, b.set, gpa, uint64(noteHeader+len(n.text))) {
			return f, nil
		}
	}
	return nil, doubt("it was left behind: its own page is free")
}

// inUse says whether none of the pages of n bytes at gpa is free.
func inUse(m *Memory, free *PageSet, gpa, n uint64) bool {
	for at := gpa; at < gpa+n; at += PageSize {
		if page, ok := m.PageAt(at); !ok || free.Has(page) {
			return false
		}
	}
	return true
}
