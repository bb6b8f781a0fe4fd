package guestmem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Options are what the caller knows of the guest besides its memory.
type Options struct {
	// CR3 are the page-table registers of the guest's processors, where the VMM
	// tells them. Zeros are left out.
	CR3 []uint64
}

// A Report says what FreePages found and why it may be believed. Counts are in
// pages.
type Report struct {
	Trusted bool   // the set is what the guest's kernel knew at the pause
	Why     string // a sentence for the user: why free pages are known, or why not

	Kernel string // release of the guest's kernel, if one was found
	Levels int    // of its page tables
	Notes  int    // VMCOREINFO notes in memory

	Total    uint64 // pages of RAM
	Free     uint64 // free ones, of which Poisoned are not in the set
	ZoneFree uint64 // free ones by the zones' own lists; it equals Free but for a block that moved when the guest was paused
	ZoneStat uint64 // NR_FREE_PAGES of the zones, which the guest shows as MemFree; less exact

	// PagePoison is set if the guest fills its free pages with 0xaa and checks
	// that they still hold it: such pages must be kept. Poisoned is how many free
	// pages were full of it.
	PagePoison bool
	Poisoned   uint64

	Took time.Duration
}

// FreePages finds the pages that were free when the guest was paused. The memory
// must not change meanwhile. If it cannot be sure the set is nil, and the
// report's Why says why: that is no error, the guest is just not known. An error
// wraps ErrFault, or is ctx's.
func FreePages(ctx context.Context, m *Memory, o Options) (*PageSet, Report, error) {
	begin := time.Now()
	r := Report{Total: m.Pages()}
	set, err := r.find(ctx, m, o)
	if err != nil {
		set = nil
	}
	r.Trusted = set != nil
	r.Took = time.Since(begin)
	return set, r, err
}

// find looks at all notes and returns the free pages if those that pass agree.
func (r *Report) find(ctx context.Context, m *Memory, o Options) (*PageSet, error) {
	notes, found, err := findNotes(ctx, m)
	r.Notes = found
	if err != nil {
		return nil, err
	}
	switch {
	case found == 0:
		r.Why = "no VMCOREINFO note in memory: not Linux, a kernel without it, or encrypted"
		return nil, nil
	case found > maxNotes:
		r.Why = fmt.Sprintf("%d VMCOREINFO notes in memory, more than the %d that are looked at", found, maxNotes)
		return nil, nil
	}
	var passed *finding
	var refused []string
	for _, n := range notes {
		f, err := judge(ctx, m, n, o)
		var doubt *doubtError
		if errors.As(err, &doubt) {
			refused = append(refused, fmt.Sprintf("note at %#x: %v", n.gpas[0], doubt))
			continue
		}
		if err != nil {
			return nil, err
		}
		if passed != nil && !passed.set.equal(f.set) {
			r.Why = "two VMCOREINFO notes look true and disagree about the free pages"
			return nil, nil
		}
		passed = f
	}
	if passed == nil {
		r.Why = "no VMCOREINFO note can be trusted: " + strings.Join(refused, "; ")
		return nil, nil
	}
	r.take(passed)
	return r.unpoisoned(ctx, m, passed.set)
}

// take takes the numbers of the kernel that was believed.
func (r *Report) take(f *finding) {
	r.Kernel, r.Levels = f.kernel.release, f.kernel.levels
	r.Free, r.ZoneFree, r.ZoneStat = f.free, f.zones.pages, f.zones.stat
	r.Why = fmt.Sprintf("Linux %s: %d free pages by its memory map, %d by its zones", r.Kernel, r.Free, r.ZoneFree)
}

// unpoisoned takes the pages full of poison out of the set: a guest that poisons
// its free pages would find zeros in them and report corruption.
func (r *Report) unpoisoned(ctx context.Context, m *Memory, set *PageSet) (*PageSet, error) {
	n, err := keepPoisoned(ctx, m, set)
	if err != nil {
		return nil, err
	}
	r.Poisoned = n
	// A guest that poisons does it to every free page. A few are chance, or a
	// program's that liked the pattern.
	if n > 0 && n >= r.Free/4 {
		r.PagePoison = true
		r.Why = fmt.Sprintf("Linux %s poisons its free pages (page_poison=1) and checks them: they must be kept", r.Kernel)
		return nil, nil
	}
	return set, nil
}
