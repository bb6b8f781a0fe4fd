package memsvc

import (
	"bytes"
	"context"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
)

// copyChunk is how much memory one worker takes at a time, in bytes.
const copyChunk = 1 << 20

// maxCopiers at a time; the array's log is one behind all of them.
const maxCopiers = 4

// copyMemory copies what has to be kept, and counts the pages.
func copyMemory(ctx context.Context, i *importing) (PageCounts, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	copiers := make([]*copier, min(maxCopiers, max(2, runtime.GOMAXPROCS(0))))
	for n := range copiers {
		c := &copier{i: i, buf: make([]byte, copyChunk)}
		if i.o.Parent != "" {
			c.parent = make([]byte, copyChunk)
		}
		copiers[n] = c
		wg.Go(func() {
			for ctx.Err() == nil {
				off := next.Add(copyChunk) - copyChunk
				if off >= i.src.Size() {
					return
				}
				end := min(off+copyChunk, i.src.Size())
				if err := c.chunk(off, end); err != nil {
					cancel(err)
				}
				i.o.Progress.Add(end - off)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return PageCounts{}, context.Cause(ctx)
	}
	var sum PageCounts
	for _, c := range copiers {
		sum.add(&c.pages)
	}
	sum.Total = i.src.Size() / PageSize
	return sum, nil
}

func (c *PageCounts) add(d *PageCounts) {
	c.InUse += d.InUse
	c.Free += d.Free
	c.Zero += d.Zero
	c.Shared += d.Shared
}

// fate of a page.
type fate int

const (
	fateHole  fate = iota // free or zeros
	fateSame              // it is the parent's
	fateWrite             // it has to be stored
)

// copier is one worker of an import.
type copier struct {
	i      *importing
	at     int // the span of the page before
	pages  PageCounts
	base   int64  // of the chunk under way
	buf    []byte // what the chunk holds
	parent []byte // what the parent holds at the same place; nil without a parent
	offs   []int64
	data   [][]byte
}

// chunk handles the pages of [off, end).
func (c *copier) chunk(off, end int64) error {
	c.base, c.offs, c.data = off, c.offs[:0], c.data[:0]
	if c.parent != nil {
		if err := c.i.w.ReadAt(c.parent[:end-off], off); err != nil {
			return err
		}
	}
	all := c.i.data
	for x := sort.Search(len(all), func(x int) bool { return all[x].end > off }); x < len(all) && all[x].off < end; x++ {
		from, to := max(off, all[x].off), min(end, all[x].end)
		if err := c.missing(off, from); err != nil {
			return err
		}
		if err := c.i.src.ReadAt(c.buf[from-c.base:to-c.base], from); err != nil {
			return err
		}
		if err := c.present(from, to); err != nil {
			return err
		}
		off = to
	}
	if err := c.missing(off, end); err != nil || len(c.offs) == 0 {
		return err
	}
	return c.i.w.WritePages(c.offs, c.data)
}

// missing handles pages that are a hole in the source.
func (c *copier) missing(from, to int64) error {
	all, free := (to-from)/PageSize, int64(0)
	for off := from; c.i.free != nil && off < to; off += PageSize {
		if c.free(off) {
			free++
		}
	}
	c.pages.Free += free
	c.pages.Zero += all - free
	return c.discard(from, to)
}

// present handles pages that were read, of which there is one at least, in runs of one fate.
func (c *copier) present(from, to int64) error {
	run, what := from, c.decide(from)
	for off := from + PageSize; off < to; off += PageSize {
		next := c.decide(off)
		if next == what {
			continue
		}
		if err := c.settle(what, run, off); err != nil {
			return err
		}
		run, what = off, next
	}
	return c.settle(what, run, to)
}

// decide counts a page and says what becomes of it.
func (c *copier) decide(off int64) fate {
	page := c.buf[off-c.base:][:PageSize]
	switch {
	case c.free(off):
		c.pages.Free++
		return fateHole
	case bytes.Equal(page, zeros[:]):
		c.pages.Zero++
		return fateHole
	}
	c.pages.InUse++
	if c.parent != nil && bytes.Equal(page, c.parent[off-c.base:][:PageSize]) {
		c.pages.Shared++
		return fateSame
	}
	return fateWrite
}

func (c *copier) settle(what fate, from, to int64) error {
	switch what {
	case fateHole:
		return c.discard(from, to)
	case fateWrite:
		c.offs = append(c.offs, from)
		c.data = append(c.data, c.buf[from-c.base:to-c.base])
	}
	return nil
}

// discard makes holes of pages, unless the parent has none but zeros there.
func (c *copier) discard(from, to int64) error {
	if from == to || c.parent == nil || allZero(c.parent[from-c.base:to-c.base]) {
		return nil
	}
	return c.i.w.Discard(from, to-from)
}

// free says whether the page at an offset of the image is free in the guest.
func (c *copier) free(off int64) bool {
	if c.i.free == nil {
		return false
	}
	spans := c.i.spans
	if s := &spans[c.at]; off < s.off || off >= s.off+s.size {
		n := sort.Search(len(spans), func(n int) bool { return spans[n].off+spans[n].size > off })
		if n == len(spans) || off < spans[n].off {
			return false // it is not known where that is in the guest
		}
		c.at = n
	}
	s := &spans[c.at]
	return c.i.free.Has(s.first + uint64(off-s.off)/PageSize)
}

var zeros [PageSize]byte

func allZero(p []byte) bool {
	for ; len(p) >= PageSize; p = p[PageSize:] {
		if !bytes.Equal(p[:PageSize], zeros[:]) {
			return false
		}
	}
	return true
}
