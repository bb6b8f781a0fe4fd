package lsa

import (
	"fmt"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// pagesPerBatch bounds what a trim of any size pins and logs at a time.
const pagesPerBatch = 128

// Trim unmaps the whole blocks within [off, off+n): they read as zeros and give
// their space back. What it costs depends on what is mapped there, and a little
// on how many snapshots have something at all, not on n or on other volumes.
func (h *Handle) Trim(off, n int64) error {
	if err := h.check("trim", off, n, true); err != nil {
		return err
	}
	first := (off + format.BlockSize - 1) / format.BlockSize
	end := (off + n) / format.BlockSize
	if end <= first {
		return nil
	}
	h.v.gate.RLock()
	defer h.v.gate.RUnlock()
	return h.a.lockedRange(h.v, uint64(first), uint64(end-first), func(layer, block, count uint64) error {
		return h.a.unmap(layer, h.v.Copies, block, count)
	})
}

// WriteZeroes makes [off, off+n) read as zeros. With noHole the space stays
// allocated to the volume; otherwise whole blocks become holes.
func (h *Handle) WriteZeroes(off, n int64, noHole bool) error {
	if err := h.check("write zeroes", off, n, true); err != nil {
		return err
	}
	h.v.gate.RLock()
	defer h.v.gate.RUnlock()
	first := (off + format.BlockSize - 1) / format.BlockSize * format.BlockSize
	end := (off + n) / format.BlockSize * format.BlockSize
	if end <= first { // within one block, or across a border with none whole
		return h.zeroEdge(off, n)
	}
	if err := h.zeroEdge(off, first-off); err != nil {
		return err
	}
	if err := h.zeroEdge(end, off+n-end); err != nil {
		return err
	}
	return h.a.lockedRange(h.v, uint64(first)/format.BlockSize, uint64(end-first)/format.BlockSize, func(layer, block, count uint64) error {
		if noHole {
			return h.a.zero(layer, h.v.Copies, block, count)
		}
		return h.a.unmap(layer, h.v.Copies, block, count)
	})
}

func (h *Handle) zeroEdge(off, n int64) error {
	if n == 0 {
		return nil
	}
	return h.writePartial(off, make([]byte, n))
}

// lockedRange runs fn with the stripes of the range shared.
func (a *Array) lockedRange(v *volume, block, count uint64, fn func(layer, block, count uint64) error) error {
	mask := stripeMask(block, count)
	v.stripes.lock(mask, 0)
	defer v.stripes.unlock(mask, 0)
	return fn(v.Head, block, count)
}

// unmap logs, in so many copies, and makes holes wherever the layer sees
// something mapped. The caller holds the volume's gate.
func (a *Array) unmap(layer uint64, copies int, block, count uint64) error {
	pages, err := a.pagesIn(layer, block/blockmap.PageBlocks, (block+count-1)/blockmap.PageBlocks+1)
	if err != nil {
		return fmt.Errorf("trim: %w", err)
	}
	for len(pages) > 0 {
		n := min(len(pages), pagesPerBatch)
		if err := a.changePages(format.EntryTrim, layer, copies, block, count, pages[:n], 0); err != nil {
			return fmt.Errorf("trim: %w", err)
		}
		pages = pages[n:]
	}
	return nil
}

// zero logs and maps allocated zeros.
func (a *Array) zero(layer uint64, copies int, block, count uint64) error {
	if count > uint64(a.limit.Load()) {
		return fmt.Errorf("write zeroes: %w: %d blocks, the array has %d", ErrNoSpace, count, a.limit.Load())
	}
	var pages [pagesPerBatch]uint64
	for end := block + count; block < end; {
		n := 0
		next := block
		for n < len(pages) && next < end {
			pages[n] = next / blockmap.PageBlocks
			next = (pages[n] + 1) * blockmap.PageBlocks
			n++
		}
		next = min(next, end)
		if err := a.changePages(format.EntryZero, layer, copies, block, next-block, pages[:n], int64(next-block)); err != nil {
			return fmt.Errorf("write zeroes: %w", err)
		}
		block = next
	}
	return nil
}

// changePages logs one batch of ranges: the parts of [block, block+count) that
// lie in pages, which are in order.
func (a *Array) changePages(kind format.EntryKind, layer uint64, copies int, block, count uint64, pages []uint64, add int64) error {
	b := newBatch(originUser)
	defer b.release()
	b.add, b.urgent, b.copies = add, kind == format.EntryTrim, copies
	if planted(ruleTrimInTwo) {
		b.copies = 1
	}
	for _, pg := range pages {
		from, to := max(block, pg*blockmap.PageBlocks), min(block+count, (pg+1)*blockmap.PageBlocks)
		if n := len(b.changes); n > 0 && b.changes[n-1].block+b.changes[n-1].count == from {
			b.changes[n-1].count += to - from
			continue
		}
		b.addRange(kind, layer, from, to-from)
	}
	return a.submit(b)
}

// eachPageOf cuts a run of blocks at the borders of map pages.
func eachPageOf(block, count uint64, fn func(block uint64, n int)) {
	for count > 0 {
		n := min(count, blockmap.PageBlocks-block%blockmap.PageBlocks)
		fn(block, int(n))
		block, count = block+n, count-n
	}
}

// extentWindow is how many pages of the map are looked at first; each window
// without anything mapped makes the next one four times as large.
const extentWindow = 256

// Extents calls fn with consecutive extents that cover [off, off+n), until it
// returns false. A hole reads as zeros and takes no space; zero without hole
// reads as zeros and does.
func (h *Handle) Extents(off, n int64, fn func(n int64, hole, zero bool) bool) error {
	if err := h.check("block status of", off, n, false); err != nil {
		return err
	}
	if n == 0 {
		return nil
	}
	x := extents{fn: fn, off: off, end: off + n}
	first := uint64(off) / format.BlockSize
	end := (uint64(off+n) + format.BlockSize - 1) / format.BlockSize
	window := uint64(extentWindow)
	for pg := first / blockmap.PageBlocks; pg*blockmap.PageBlocks < end && !x.stopped; {
		to := min(pg+window, (end-1)/blockmap.PageBlocks+1)
		pages, err := h.pagesIn(pg, to)
		if err != nil {
			return fmt.Errorf("block status of volume %q: %w", h.name, err)
		}
		if len(pages) == 0 {
			window *= 4
		}
		if err := h.pageExtents(&x, pages, max(first, pg*blockmap.PageBlocks), min(end, to*blockmap.PageBlocks)); err != nil {
			return fmt.Errorf("block status of volume %q: %w", h.name, err)
		}
		pg = to
	}
	x.finish()
	return nil
}

// pageExtents adds blocks [block, end), of which only those in pages may be
// mapped.
func (h *Handle) pageExtents(x *extents, pages []uint64, block, end uint64) error {
	var entries [blockmap.PageBlocks]blockmap.Entry
	for _, pg := range pages {
		from, to := max(block, pg*blockmap.PageBlocks), min(end, (pg+1)*blockmap.PageBlocks)
		if from > block {
			x.add(from-block, blockmap.KindNone)
		}
		part := entries[:to-from]
		if err := h.lookup(from, part); err != nil {
			return err
		}
		for i := range part {
			x.add(1, part[i].Kind)
		}
		if block = to; x.stopped {
			return nil
		}
	}
	if block < end {
		x.add(end-block, blockmap.KindNone)
	}
	return nil
}

// pagesIn returns the pages of the map in which the handle may have something.
// Here as in lookup the head is asked for anew and held as by a read, but for no
// longer: what Extents calls between may take its time.
func (h *Handle) pagesIn(from, to uint64) ([]uint64, error) {
	turn := h.a.readers.enter()
	defer h.a.readers.exit(turn)
	return h.a.pagesIn(h.head(), from, to)
}

func (h *Handle) lookup(block uint64, dst []blockmap.Entry) error {
	turn := h.a.readers.enter()
	defer h.a.readers.exit(turn)
	return h.a.blocks.Lookup(h.head(), block, dst)
}

// extents joins runs of blocks of one kind and cuts them to the range asked.
type extents struct {
	fn         func(n int64, hole, zero bool) bool
	off, end   int64 // bytes: reported so far, asked for
	blocks     int64 // of the run, from the block of off on
	hole, zero bool
	stopped    bool
}

func (x *extents) add(blocks uint64, kind blockmap.Kind) {
	hole := kind == blockmap.KindNone || kind == blockmap.KindHole
	zero := hole || kind == blockmap.KindZero
	if x.blocks > 0 && (hole != x.hole || zero != x.zero) {
		x.finish()
	}
	x.hole, x.zero = hole, zero
	x.blocks += int64(blocks)
}

func (x *extents) finish() {
	if x.stopped || x.blocks == 0 {
		return
	}
	to := min(x.end, (x.off/format.BlockSize+x.blocks)*format.BlockSize)
	if n := to - x.off; n > 0 {
		x.stopped = !x.fn(n, x.hole, x.zero)
	}
	x.off, x.blocks = to, 0
}
