package lsa

import (
	"errors"
	"fmt"
	"sync"

	"lsad/internal/blockdev"
	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// readRun is how many blocks are looked up at a time.
const readRun = 256

type readScratch struct {
	entries [readRun]blockmap.Entry
	waiting [readRun]piece
	block   [format.BlockSize]byte
}

var readScratches = sync.Pool{New: func() any { return new(readScratch) }}

// errWouldBlock: a read that is not to wait for a disk would have to. It stays within the package.
var errWouldBlock = errors.New("would block")

// ReadAt fills p from off. Every block is checked against the checksum in the
// map; one that does not match is an error that wraps ErrDamaged.
func (h *Handle) ReadAt(p []byte, off int64) error {
	if err := h.check("read", off, int64(len(p)), false); err != nil {
		return err
	}
	return h.read(p, off, false)
}

// TryReadAt is ReadAt if that takes no wait for a disk; if it would, done is
// false and p undefined.
func (h *Handle) TryReadAt(p []byte, off int64) (done bool, err error) {
	if err := h.check("read", off, int64(len(p)), false); err != nil {
		return true, err
	}
	if err = h.read(p, off, true); err == errWouldBlock {
		return false, nil
	}
	return true, err
}

// readBlocks reads whole blocks.
func (h *Handle) readBlocks(p []byte, block int64) error {
	return h.read(p, block*format.BlockSize, false)
}

func (h *Handle) read(p []byte, off int64, try bool) error {
	s := readScratches.Get().(*readScratch)
	defer readScratches.Put(s)
	turn := h.a.readers.enter()
	defer h.a.readers.exit(turn)
	layer := h.head()
	for len(p) > 0 {
		block, skip := uint64(off)/format.BlockSize, int(off%format.BlockSize)
		n := min(readRun, (skip+len(p)+format.BlockSize-1)/format.BlockSize)
		entries := s.entries[:n]
		if !h.a.blocks.TryLookup(layer, block, entries) {
			if try {
				return errWouldBlock
			}
			if err := h.a.blocks.Lookup(layer, block, entries); err != nil {
				return fmt.Errorf("read volume %q: %w", h.name, err)
			}
		}
		part := p[:min(len(p), n*format.BlockSize-skip)]
		if err := h.a.readEntries(part, skip, place{layer, block}, entries, s, try); err != nil {
			if err == errWouldBlock {
				return err
			}
			return fmt.Errorf("read volume %q at %d: %w", h.name, off, err)
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// run counts the entries at the front whose blocks, in the copy that is to be
// read, the k-th, lie one after the other. Which one that is may be another the
// next time that it is asked.
func (a *Array) run(entries []blockmap.Entry, most int) (n, k int) {
	k, n = a.nearest(&entries[0]), 1
	for n < len(entries) && n < most && entries[n].Kind == blockmap.KindData &&
		entries[n].Place[k] == entries[0].Place[k].After(n) {
		n++
	}
	return n, k
}

// readPlace reads blocks whose k-th copies lie one after the other, and
// verifies them.
func (a *Array) readPlace(p []byte, entries []blockmap.Entry, k int, try bool) error {
	place := entries[0].Place[k]
	d := a.devOf(place)
	if d == nil {
		return fmt.Errorf("%w: %v: device %d is absent", ErrMissingDevice, place, place.Device())
	}
	if !d.holds(place, len(entries)) {
		return fmt.Errorf("%w: the map has a block at %v, which is no place for one", ErrDamaged, place)
	}
	off := d.offset(place.Segment(), place.Sector())
	if try {
		if err := d.dev.TryReadAt(p, off); err != nil {
			if errors.Is(err, blockdev.ErrWouldBlock) {
				return errWouldBlock
			}
			return fmt.Errorf("device %s: %w", d.dev.Name(), err)
		}
	} else if err := d.dev.ReadAt(p, off); err != nil {
		return fmt.Errorf("device %s: %w", d.dev.Name(), err)
	}
	for i := range entries {
		if got := format.Checksum(p[i*format.BlockSize:][:format.BlockSize]); got != entries[i].CRC {
			a.counters.damaged.Add(1)
			return fmt.Errorf("%w: device %s, %v: checksum %08x, the map has %08x",
				ErrDamaged, d.dev.Name(), entries[i].Place[k], got, entries[i].CRC)
		}
	}
	return nil
}
