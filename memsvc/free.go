package memsvc

import "context"

// Region is guest memory at a guest-physical address, mapped for reading. Nobody may write it.
type Region struct {
	GPA  uint64
	Data []byte
}

// FreeSet is a set of guest pages.
type FreeSet interface {
	// Has says whether the page at a guest-physical address is in the set.
	Has(gpa uint64) bool
}

// FreeReport says what a search for free pages found.
type FreeReport struct {
	Kernel string // release, "" if none was found
	Why    string // the set is to be trusted, or why there is none
	// Poisoned: the guest fills free pages with 0xaa and checks them; a free page that is full of it has to be kept.
	Poisoned bool
}

// FreeFinder finds the pages that a paused guest has free.
type FreeFinder interface {
	// FreePages returns nil for the set, and why in the report, if it cannot be sure. regions are in order of
	// their addresses and do not overlap.
	FreePages(ctx context.Context, regions []Region) (FreeSet, FreeReport, error)
}
