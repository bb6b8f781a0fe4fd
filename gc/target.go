package gc

import (
	"context"
	"time"
)

// SegmentID names a segment within one device.
type SegmentID uint32

// SegmentInfo describes a sealed segment that may be collected.
type SegmentInfo struct {
	ID       SegmentID
	Live     int    // blocks that the map still refers to, 1..Capacity
	Capacity int    // blocks that the segment can hold
	Opened   uint64 // LSN when its first block was appended
	Sealed   uint64 // LSN when it was sealed
	Class    int    // what Placement said of its blocks
}

// Counts is the state of a device's segments.
type Counts struct {
	// Unused segments can be opened for appending at once.
	Unused int
	// Pending segments are empty, by collection, overwriting or trims, but become unused only after a durable
	// checkpoint. They are on their way: collection counts them as if they were unused, or it would go on for
	// as long as a checkpoint takes.
	Pending int
	// Total segments of the device.
	Total int
}

// Target is one device, as its collector sees it. Count and Candidates may be called while Collect runs, from
// within Collect's calls to its Pacer too: a Target must not call the Pacer with the lock held that they take.
type Target interface {
	// Name of the device, unique in the array, as in listings and settings.
	Name() string
	// Count must be cheap: it is called for every segment taken and for every chunk collected.
	Count() Counts
	// Now is the current LSN, the clock in which SegmentInfo is dated.
	Now() uint64
	// Candidates calls fn for each sealed segment with live blocks, until fn returns false.
	Candidates(fn func(SegmentInfo) bool)
	// Collect relocates the live blocks of a segment, reports to pace after each chunk, and returns how many
	// blocks it moved. Afterwards the segment is counted as Pending, later as Unused. On an error, or if a
	// block had to be kept where it is, the segment stays; it is not tried again before its live count changed.
	Collect(ctx context.Context, seg SegmentID, pace Pacer) (moved int, err error)
	// Release asks, without waiting, that pending segments be made unused soon (a checkpoint).
	Release()
}

// Pacer bounds the share of a device's time that collection takes.
type Pacer interface {
	// Pace is called after each chunk of a collection with the time that the chunk kept the device busy. It
	// waits as long as the collection should leave the device to others, and returns ctx's error if that ends
	// first.
	Pace(ctx context.Context, worked time.Duration) error
}
