package qemu

import (
	"fmt"
	"slices"
	"time"
)

// Order is the order in which a VM first touched its memory: numbers of chunks of the address space of all blocks.
type Order struct {
	ChunkBytes int64 // a power of two, PageSize at least
	Chunks     []int64
}

func (o *Order) check() error {
	if c := o.ChunkBytes; len(o.Chunks) > 0 && (c < PageSize || c&(c-1) != 0) {
		return fmt.Errorf("an order of chunks of %d bytes", c)
	}
	return nil
}

// orderer gives the pages of an order, those first that were touched first.
type orderer struct {
	order Order
	next  int   // chunk
	page  int64 // in it
}

// missing is the next page of the order that is not in the set, and whether there is one.
func (o *orderer) missing(has *PageSet) (page int64, ok bool) {
	per := o.order.ChunkBytes / PageSize
	for ; o.next < len(o.order.Chunks); o.next, o.page = o.next+1, 0 {
		first := o.order.Chunks[o.next] * per
		end := min(first+per, has.Len())
		for ; first+o.page < end; o.page++ {
			if page = first + o.page; page >= 0 && !has.Has(page) {
				return page, true
			}
		}
	}
	return 0, false
}

// end is the page behind the chunk of the page that missing gave.
func (o *orderer) end(has *PageSet) int64 {
	return min((o.order.Chunks[o.next]+1)*(o.order.ChunkBytes/PageSize), has.Len())
}

// Recorded orders are in chunks of recordChunk bytes: neighbours are touched together more often than not, and an
// order of single pages takes sixteen times the room.
const recordChunk = 64 << 10

// maxRecorded bounds a recorded order; what comes later matters least.
const maxRecorded = 1 << 16

// recorder notes for a time which pages are asked for, while nothing is sent but those: a page that is there already is
// touched unseen.
type recorder struct {
	lasts time.Duration
	seen  *PageSet // of chunks
	order []int64
	tell  func(Order) // nil once told
}

func newRecorder(o *RestoreOptions) *recorder {
	if o.Record <= 0 || o.Recorded == nil {
		return nil
	}
	const per = recordChunk / PageSize
	return &recorder{lasts: o.Record, seen: NewPageSet((o.State.Pages() + per - 1) / per), tell: o.Recorded}
}

func (r *recorder) note(want pageRange) {
	const per = recordChunk / PageSize
	for c := want.first / per; c <= (want.first+want.count-1)/per && len(r.order) < maxRecorded; c++ {
		if r.seen.Add(c) {
			r.order = append(r.order, c)
		}
	}
}

// end tells what was recorded, once.
func (r *recorder) end() {
	if r.tell != nil {
		r.tell(Order{ChunkBytes: recordChunk, Chunks: slices.Clone(r.order)})
		r.tell = nil
	}
}
