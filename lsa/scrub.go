package lsa

import (
	"context"
	"errors"
	"fmt"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// ScrubReport is what a scrub found.
type ScrubReport struct {
	Blocks   int64    `json:"blocks"`   // copies of blocks that were read
	Bad      int64    `json:"bad"`      // of those, damaged or unreadable; where neither repaired nor lost, a new one could not be written
	Repaired int64    `json:"repaired"` // of those, written anew from the other copy
	Lost     int64    `json:"lost"`     // of those, the only copy or as bad as the other, which counts too
	Missing  int64    `json:"missing"`  // copies on absent devices
	Problems []string `json:"problems"` // blocks that are lost or could not be repaired, the first of them
}

// mostProblems of a scrub are named.
const mostProblems = 100

// Scrub reads every copy of every block that volumes and snapshots have, verifies it, and has bad
// copies written anew from good ones. rate is in bytes read a second, 0 for no bound.
func (a *Array) Scrub(ctx context.Context, rate int64) (*ScrubReport, error) {
	s := &scrub{walk: walk{a: a, ctx: ctx, rate: rate, status: &a.scrubbing}, buf: make([]byte, blockmap.PageBlocks*format.BlockSize)}
	s.report.Problems = []string{}
	err := s.run(func() []uint64 { return a.layersUnder(func(*volume) bool { return true }) }, s.entries)
	if err != nil {
		err = fmt.Errorf("scrub: %w", err)
	}
	return &s.report, err
}

// ScrubProgress says how far a scrub is.
func (a *Array) ScrubProgress() Progress { return a.scrubbing.progress() }

type scrub struct {
	walk
	report ScrubReport
	buf    []byte
	named  map[uint64]bool // blocks of the page that are among the problems
}

func (s *scrub) entries(layer, page uint64, entries []blockmap.Entry) error {
	clear(s.named)
	for k := range 2 {
		for i := 0; i < len(entries); {
			if entries[i].Place[k] == 0 {
				i++
				continue
			}
			n := 1
			for i+n < len(entries) && entries[i+n].Place[k] == entries[i].Place[k].After(n) {
				n++
			}
			s.stretch(layer, page, entries[i:i+n], k)
			if err := s.pace(n * format.BlockSize); err != nil {
				return err
			}
			i += n
		}
	}
	return nil
}

// stretch reads the k-th copies of blocks, which lie one after the other.
func (s *scrub) stretch(layer, page uint64, entries []blockmap.Entry, k int) {
	s.report.Blocks += int64(len(entries))
	s.status.blocks.Add(int64(len(entries)))
	if s.a.devOf(entries[0].Place[k]) == nil {
		s.report.Missing += int64(len(entries))
		if k == 0 && entries[0].Place[1] == 0 {
			s.lost(layer, page, &entries[0], fmt.Errorf("%w: and %d blocks behind it", ErrMissingDevice, len(entries)-1))
		}
		return
	}
	// No reader's turn is taken: a repair that waited for room would wait for
	// itself. What was moved and overwritten meanwhile is told from damage below.
	if s.a.readPlace(s.buf[:len(entries)*format.BlockSize], entries, k, false) == nil {
		return
	}
	for i := range entries {
		s.block(layer, page, &entries[i], k)
	}
}

// block reads one copy. It may have been moved meanwhile: then it is right.
func (s *scrub) block(layer, page uint64, e *blockmap.Entry, k int) {
	block := page*blockmap.PageBlocks + uint64(e.Off)
	err := s.a.readPlace(s.buf[:format.BlockSize], []blockmap.Entry{placed(e, e.Place[k])}, 0, false)
	if err == nil {
		return
	}
	now, own, lookup := s.a.blocks.OwnEntry(layer, block)
	if lookup == nil && (!own || now.LSN != e.LSN || !now.Has(e.Place[k])) {
		return
	}
	s.report.Bad++
	if now.Place[1] == 0 || s.a.readOnly {
		s.lost(layer, page, e, err)
		return
	}
	switch err := s.a.repair(repair{place{layer, block}, e.LSN, e.Place[k]}); {
	case err == nil:
		s.report.Repaired++
	case errors.Is(err, errNoGoodCopy):
		s.lost(layer, page, e, err)
	default:
		s.problem(layer, page, e, fmt.Errorf("one good copy is left: %w", err))
	}
}

func (s *scrub) lost(layer, page uint64, e *blockmap.Entry, err error) {
	s.report.Lost++
	s.problem(layer, page, e, err)
}

func (s *scrub) problem(layer, page uint64, e *blockmap.Entry, err error) {
	block := page*blockmap.PageBlocks + uint64(e.Off)
	if len(s.report.Problems) >= mostProblems || s.named[block] { // both copies are lost
		return
	}
	if s.named == nil {
		s.named = map[uint64]bool{}
	}
	s.named[block] = true
	s.report.Problems = append(s.report.Problems, fmt.Sprintf("%s: %v", s.a.nameOf(layer, block), err))
}

// nameOf names a block by what a user knows it by, if there is that.
func (a *Array) nameOf(layer, block uint64) string {
	a.catalog.mu.Lock()
	defer a.catalog.mu.Unlock()
	for _, v := range a.catalog.volumes {
		if v.Head == layer {
			return fmt.Sprintf("volume %s at byte %d", v.Name, block*format.BlockSize)
		}
		for _, s := range v.Snapshots {
			if s.Layer == layer {
				return fmt.Sprintf("volume %s@%s at byte %d", v.Name, s.Name, block*format.BlockSize)
			}
		}
	}
	return fmt.Sprintf("layer %d block %d", layer, block)
}
