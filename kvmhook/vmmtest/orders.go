package vmmtest

import "time"

// Page sizes, in bytes.
const (
	SmallPage = 4 << 10
	HugePage  = 2 << 20
)

// What an order may have done.
const (
	OpMap     = "map"     // map Regions, register them and shake hands with Socket, in the style of Version
	OpTouch   = "touch"   // read pages First to Last of Region with Threads, and return their hashes
	OpMeasure = "measure" // read a word of each of these pages, and return how long it took
	OpWrite   = "write"   // write the first word of each of these pages
	OpRemove  = "remove"  // madvise(MADV_DONTNEED) of these pages
	OpUnmap   = "unmap"   // munmap of these pages
	OpMove    = "move"    // mremap to another address: the whole region if Last is 0, else a part that is lost to further orders
	OpGuest   = "guest"   // run GuestProgram on a virtual CPU with Region as its memory
)

// Order is what a VMM is to do.
type Order struct {
	ID      int
	Op      string
	Socket  string
	Version int    // of the handshake: 1, 2 or 3 as Firecracker has had them; 0 for no userfaultfd at all
	File    string // what Version 0 maps
	Events  bool   // besides removals, have unmapping and moving told
	Regions []Region
	Region  int
	First   int // pages
	Last    int
	Threads int
	Stride  int           // touch every so many pages, in the end each of them once
	Seed    uint64        // measure in a random order, unless 0
	Some    int           // measure only so many of the pages, unless 0
	Run     int           // the order is one of runs of so many pages, which are touched in order; 0 for single pages
	Pace    time.Duration // work between two touches
}

// Region is a mapping to make, in bytes.
type Region struct{ Size, Offset, Page int64 }

// Answer is what came of an order.
type Answer struct {
	ID     int
	Err    string
	Hashes []uint64  // per page touched, from First on
	Regs   [2]uint64 // what the guest told: the sum of words that it read, and that of those it wrote

	Total        time.Duration // of a measurement
	Median, Tail time.Duration // of its touches: the 50th and the 99th percentile
	MinorFaults  int64         // of the process, during it
}
