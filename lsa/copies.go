package lsa

import (
	"errors"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// place of a block in the map, as the reader of a layer sees it.
type place struct{ layer, block uint64 }

func (p place) after(n int) place { return place{p.layer, p.block + uint64(n)} }

// nearest says which copy of a block is read: one that is there, and whose
// device is not being collected. Where both are as good, neighbours in the log
// are read from one device.
func (a *Array) nearest(e *blockmap.Entry) int {
	if e.Place[1] == 0 {
		return 0
	}
	x, y := a.rank(e.Place[0]), a.rank(e.Place[1])
	if x != y {
		if y < x {
			return 1
		}
		return 0
	}
	return int(e.Place[0].Segment()&1 ^ e.Place[1].Segment()&1)
}

// rank of a place to read from; the lower the better.
func (a *Array) rank(p format.Place) int {
	d := a.devOf(p)
	switch {
	case d == nil:
		return 3
	case !d.writable.Load():
		return 2
	case d.busy.Load() > 0:
		return 1
	}
	return 0
}

// readCopies reads blocks whose k-th copies lie one after the other. Where
// that fails it takes the other copy, block by block, and has the bad one
// written anew.
func (a *Array) readCopies(p []byte, at place, entries []blockmap.Entry, k int, try bool) error {
	err := a.readPlace(p, entries, k, try)
	if err == nil || err == errWouldBlock || entries[0].Place[1] == 0 && len(entries) == 1 {
		return err
	}
	for i := range entries {
		if err := a.readEither(p[i*format.BlockSize:][:format.BlockSize], at.after(i), entries[i:i+1], try); err != nil {
			return err
		}
	}
	return nil
}

// readEither reads one block from the copy that can be read.
func (a *Array) readEither(p []byte, at place, entry []blockmap.Entry, try bool) error {
	k := a.nearest(&entry[0])
	first := a.readPlace(p, entry, k, try)
	if first == nil || first == errWouldBlock || entry[0].Place[1] == 0 {
		return first
	}
	if err := a.readPlace(p, entry, 1-k, try); err != nil {
		if err == errWouldBlock {
			return err
		}
		return errors.Join(first, err)
	}
	a.counters.readsOfOther.Add(1)
	if !errors.Is(first, ErrMissingDevice) {
		a.repairs.ask(repair{at, entry[0].LSN, entry[0].Place[k]})
	}
	return nil
}
