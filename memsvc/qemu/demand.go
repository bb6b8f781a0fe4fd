package qemu

import "sync"

// pageRange is pages of the address space of all blocks.
type pageRange struct{ first, count int64 }

// maxDemand bounds the requests that wait. A destination has one for each page that a vCPU or device waits for.
const maxDemand = 1 << 16

// demand is the queue of pages that the destination asks for, oldest first.
type demand struct {
	mu    sync.Mutex
	queue []pageRange
	head  int
	total int64 // requests so far
	wake  chan struct{}
}

func newDemand() demand { return demand{wake: make(chan struct{}, 1)} }

// push adds a request. One too many is dropped: the page comes with the rest.
func (d *demand) push(r pageRange) {
	d.mu.Lock()
	d.total++
	if len(d.queue)-d.head < maxDemand {
		if d.head > 0 && len(d.queue) == cap(d.queue) {
			d.queue = d.queue[:copy(d.queue, d.queue[d.head:])]
			d.head = 0
		}
		d.queue = append(d.queue, r)
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default: // it is awake, or will be
	}
}

func (d *demand) pop() (pageRange, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.head == len(d.queue) {
		d.queue, d.head = d.queue[:0], 0
		return pageRange{}, false
	}
	d.head++
	return d.queue[d.head-1], true
}

// clear forgets what was asked for on a connection that is gone: it is asked for again on the next.
func (d *demand) clear() {
	d.mu.Lock()
	d.queue, d.head = d.queue[:0], 0
	d.mu.Unlock()
}

func (d *demand) count() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.total
}
