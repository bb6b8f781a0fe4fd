package qemu

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Bounds of one batch, which is written at once. What is asked for next waits for it, so it is small.
const (
	batchData = 64   // pages with data
	batchAll  = 1024 // pages with data or zero
)

// batch is a part of the RAM section in the making. Its buffers are used again and again.
type batch struct {
	out       []byte
	data      []byte // pages as read
	last      string // block of the record before
	dataPages int
	zeroPages int
}

func newBatch() batch {
	// The largest batch: all records with data, then zero ones, each with a name; 512 for what is around.
	return batch{out: make([]byte, 0, batchData*(PageSize+8+1+maxName)+batchAll*(9+1+maxName)+512), data: make([]byte, batchData*PageSize)}
}

func (b *batch) begin() {
	b.out = appendRAMPart(b.out[:0])
	b.last, b.dataPages, b.zeroPages = "", 0, 0
}

func (b *batch) end() { b.out = appendSectionEnd(b.out) }

func (b *batch) pages() int { return b.dataPages + b.zeroPages }

// room is how many further pages may be added, if they have data.
func (b *batch) room() int64 {
	return int64(max(0, min(batchData-b.dataPages, batchAll-b.pages())))
}

// record begins the record of a page.
func (b *batch) record(block Block, off int64, flag uint64) {
	addr := uint64(off-block.Offset) | flag
	if block.Name == b.last {
		b.out = binary.BigEndian.AppendUint64(b.out, addr|ramContinue)
		return
	}
	b.out = binary.BigEndian.AppendUint64(b.out, addr)
	b.out = appendName(b.out, block.Name)
	b.last = block.Name
}

func (b *batch) addZero(block Block, off int64) {
	b.record(block, off, ramZero)
	b.out = append(b.out, 0)
	b.zeroPages++
}

// addRun adds n neighbouring pages, room() at most, of which those that are all zeros go as such.
func (b *batch) addRun(ram io.ReaderAt, block Block, off, n int64) error {
	data := b.data[:n*PageSize]
	if got, err := ram.ReadAt(data, off); err != nil && (err != io.EOF || got < len(data)) {
		return fmt.Errorf("read the RAM block %q at %#x: %w", block.Name, off-block.Offset, err)
	}
	for i := int64(0); i < n; i++ {
		page := data[i*PageSize : (i+1)*PageSize]
		if isZero(page) {
			b.addZero(block, off+i*PageSize)
			continue
		}
		b.record(block, off+i*PageSize, ramPage)
		b.out = append(b.out, page...)
		b.dataPages++
	}
	return nil
}

// isZero says whether a page is all zeros.
func isZero(p []byte) bool {
	for len(p) >= 32 {
		if binary.NativeEndian.Uint64(p)|binary.NativeEndian.Uint64(p[8:])|binary.NativeEndian.Uint64(p[16:])|binary.NativeEndian.Uint64(p[24:]) != 0 {
			return false
		}
		p = p[32:]
	}
	return true
}
