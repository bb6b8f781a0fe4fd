package lsa

import (
	"errors"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// WriteBatch writes data[i] at offs[i] and sets errs[i]. Writes that overlap
// take effect in order. It returns when all are acknowledged or failed: an
// acknowledged write survives the death of the process. data is not kept.
func (h *Handle) WriteBatch(offs []int64, data [][]byte, errs []error) {
	v := h.v
	v.gate.RLock()
	defer v.gate.RUnlock()
	total := 0
	for i := range offs {
		errs[i] = h.check("write", offs[i], int64(len(data[i])), true)
		total += len(data[i])
	}
	h.a.slow(total)
	for i := 0; i < len(offs); {
		if errs[i] != nil || len(data[i]) == 0 {
			i++
			continue
		}
		if !aligned(offs[i], data[i]) {
			errs[i] = h.writePartial(offs[i], data[i])
			i++
			continue
		}
		n := h.alignedRun(offs[i:], data[i:], errs[i:])
		if n == 0 {
			errs[i] = h.writeLarge(offs[i], data[i])
			i++
			continue
		}
		err := h.writeBlocks(offs[i:i+n], data[i:i+n], errs[i:i+n], 0)
		for j := i; j < i+n; j++ {
			if errs[j] == nil {
				errs[j] = err
			}
		}
		i += n
	}
}

func aligned(off int64, data []byte) bool {
	return off%format.BlockSize == 0 && len(data)%format.BlockSize == 0
}

// batchBytes is the most data of one batch: it must fit into half a segment.
func (a *Array) batchBytes() int {
	return min(4<<20, int(a.super.segmentSize)/2-format.MinSegmentSize/4)
}

// alignedRun counts the writes at the front that can share a batch; 0 if the
// first alone is too large.
func (h *Handle) alignedRun(offs []int64, data [][]byte, errs []error) int {
	bytes, n := 0, 0
	limit := h.a.batchBytes()
	for n < len(offs) && n < maxRecordEntries && aligned(offs[n], data[n]) {
		if errs[n] == nil {
			if bytes += len(data[n]); bytes > limit {
				break
			}
		}
		n++
	}
	return n
}

// writeLarge writes in pieces. The gate keeps snapshots out from between them.
func (h *Handle) writeLarge(off int64, data []byte) error {
	limit := h.a.batchBytes() &^ (format.BlockSize - 1)
	for len(data) > 0 {
		n := min(limit, len(data))
		if err := h.writeBlocks([]int64{off}, [][]byte{data[:n]}, []error{nil}, 0); err != nil {
			return err
		}
		off, data = off+int64(n), data[n:]
	}
	return nil
}

// writeBlocks writes whole blocks as one batch, leaving out those that have an
// error. held are stripes that the caller holds alone.
func (h *Handle) writeBlocks(offs []int64, data [][]byte, errs []error, held uint64) error {
	a, layer := h.a, h.v.Head
	b := newBatch(originUser)
	defer b.release()
	b.copies = h.v.Copies
	// The checksums must not move while the changes point to them.
	if need := totalBlocks(data); cap(b.crcs) < need {
		b.crcs = make([]uint32, 0, need)
	}
	var mask uint64
	for i := range offs {
		if errs[i] != nil || len(data[i]) == 0 {
			continue
		}
		block := uint64(offs[i]) / format.BlockSize
		b.addWrite(layer, block, data[i])
		b.add += int64(len(data[i]) / format.BlockSize * max(1, b.copies))
		mask |= stripeMask(block, uint64(len(data[i])/format.BlockSize))
	}
	if len(b.changes) == 0 {
		return nil
	}
	if held == 0 {
		h.v.stripes.lock(mask, 0)
		defer h.v.stripes.unlock(mask, 0)
	}
	return a.submit(b)
}

func totalBlocks(data [][]byte) int {
	n := 0
	for _, d := range data {
		n += len(d) / format.BlockSize
	}
	return n
}

// submit pins the batch's pages, reserves, writes and commits it.
func (a *Array) submit(b *batch) error {
	if err := a.storeStuck(); err != nil {
		return err
	}
	if err := a.pin(b); err != nil {
		return err
	}
	defer a.unpin(b)
	if err := a.place(b); err != nil {
		return err
	}
	err := a.reserve(b)
	if errors.Is(err, ErrNoSpace) && b.add > 0 {
		// Only blocks that were not mapped before make the array fuller.
		if b.add, err = a.newBlocks(b); err == nil {
			err = a.reserve(b)
		}
	}
	if errors.Is(err, ErrNoSpace) {
		err = a.noRoomFor(b, err)
	}
	if err != nil {
		return err
	}
	return a.write(b)
}

func (a *Array) pin(b *batch) error {
	for i := range b.changes {
		c := &b.changes[i]
		for pg := c.block / blockmap.PageBlocks; pg <= (c.block+c.count-1)/blockmap.PageBlocks; pg++ {
			if n := len(b.pins); n > 0 && b.pins[n-1] == (pinned{c.layer, pg}) {
				continue
			}
			if err := a.blocks.Pin(blockmap.Key{Layer: c.layer, Page: pg}); err != nil {
				a.unpin(b)
				return err
			}
			b.pins = append(b.pins, pinned{c.layer, pg})
		}
	}
	return nil
}

func (a *Array) unpin(b *batch) {
	a.unpinAll(b.pins)
	b.pins = b.pins[:0]
}

func (a *Array) unpinAll(pins []pinned) {
	for _, p := range pins {
		a.blocks.Unpin(blockmap.Key{Layer: p.layer, Page: p.page})
	}
}

// newBlocks counts the blocks, with their copies, that the batch maps and that
// do not count as used in its layer yet.
func (a *Array) newBlocks(b *batch) (int64, error) {
	var n int64
	var entries [64]blockmap.Entry
	for i := range b.changes {
		c := &b.changes[i]
		for done := uint64(0); done < c.count; {
			part := entries[:min(c.count-done, uint64(len(entries)))]
			if err := a.blocks.Lookup(c.layer, c.block+done, part); err != nil {
				return 0, err
			}
			for j := range part {
				had := 0
				if part[j].Own {
					had = part[j].Blocks()
				}
				if c.kind == format.EntryZero {
					n += int64(max(0, 1-had))
				} else {
					n += int64(max(0, max(1, b.copies)-had))
				}
			}
			done += uint64(len(part))
		}
	}
	return n, nil
}

// writePartial writes data that does not fill its first or last block: it reads
// those, with no other write to them under way until the new ones are
// committed.
func (h *Handle) writePartial(off int64, data []byte) error {
	limit := int64(h.a.batchBytes()) &^ (format.BlockSize - 1)
	for len(data) > 0 {
		// Up to a block border, so that only the first and the last piece are partial.
		n := min(int64(len(data)), limit-off%format.BlockSize)
		if err := h.writePiece(off, data[:n]); err != nil {
			return err
		}
		off, data = off+n, data[n:]
	}
	return nil
}

func (h *Handle) writePiece(off int64, data []byte) error {
	first := off / format.BlockSize
	last := (off + int64(len(data)) - 1) / format.BlockSize
	mask := stripeMask(uint64(first), uint64(last-first+1))
	h.v.stripes.lock(0, mask)
	defer h.v.stripes.unlock(0, mask)

	buf := make([]byte, (last-first+1)*format.BlockSize)
	begin := off - first*format.BlockSize
	end := begin + int64(len(data))
	if begin > 0 || end < format.BlockSize {
		if err := h.readBlocks(buf[:format.BlockSize], first); err != nil {
			return err
		}
	}
	if tail := int64(len(buf)) - format.BlockSize; end < int64(len(buf)) && tail > 0 {
		if err := h.readBlocks(buf[tail:], last); err != nil {
			return err
		}
	}
	copy(buf[begin:], data)
	return h.writeBlocks([]int64{first * format.BlockSize}, [][]byte{buf}, []error{nil}, mask)
}
