package lsa

import (
	"cmp"
	"context"
	"slices"
	"time"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// liveBlock is a block that a collection has to move.
type liveBlock struct {
	layer, block uint64
	lsn          uint64
	place        format.Place
	other        format.Place // of the other copy, zero if there is none
	crc          uint32
}

// liveIn returns the blocks of a segment that the map has there. It reads the
// headers of the records, and no dead block; where a header is damaged or
// cannot be read, it asks the map.
func (a *Array) liveIn(ctx context.Context, d *device, seg uint32) ([]liveBlock, error) {
	// Once its changes are in the map, blocks of a sealed segment only die: whoever found so many has them all.
	most := int(d.segs[seg].live.Load())
	live, skipped, err := a.liveByHeaders(d, seg)
	if err != nil {
		return nil, err
	}
	if skipped && len(live) < most {
		if more, ok := a.logs.headers.Allow(time.Now()); ok {
			a.log.Warn("record headers are damaged or cannot be read: the map is searched for what they say",
				"device", d.dev.Name(), "segment", seg, "blocks", most-len(live), "more_since_last", more)
		}
		if live, err = a.liveByMap(ctx, d, seg, live, most); err != nil {
			return nil, err
		}
	}
	return live, nil
}

func (a *Array) liveByHeaders(d *device, seg uint32) (live []liveBlock, skipped bool, err error) {
	var all []liveBlock
	a.append.mu.Lock()
	used, generation := d.segs[seg].used, d.segs[seg].generation
	a.append.mu.Unlock()
	skipped, err = a.eachHeader(d, seg, used, generation, func(h *format.RecordHeader, header []byte) error {
		place := format.MakePlace(d.slot, seg, h.Sector+uint32(h.Sectors))
		lsn := h.FirstLSN
		return format.DecodeEntries(header, h, func(e *format.Entry) error {
			at := lsn
			if lsn++; e.Kind == format.EntryMove {
				at = e.OldLSN
			}
			for i := range e.DataBlocks() {
				all = append(all, liveBlock{layer: e.Layer, block: e.Block + uint64(i), lsn: at, place: place.After(i), crc: e.CRC(i)})
			}
			place = place.After(e.DataBlocks())
			return nil
		})
	})
	if err != nil {
		return nil, skipped, err
	}
	// The map is asked page by page.
	slices.SortFunc(all, func(x, y liveBlock) int {
		return cmp.Or(cmp.Compare(x.layer, y.layer), cmp.Compare(x.block, y.block))
	})
	live = all[:0]
	for _, b := range all {
		ok, err := a.stillLive(&b)
		if err != nil {
			return nil, skipped, err
		}
		if ok {
			live = append(live, b)
		}
	}
	return live, skipped, nil
}

// stillLive says whether the map has the block there, and sets its layer to
// the one that has it now and where the other copy is.
func (a *Array) stillLive(b *liveBlock) (bool, error) {
	l, ok := a.blocks.Layers.Get(b.layer)
	for ok {
		e, own, err := a.blocks.OwnEntry(l.ID, b.block)
		if err != nil {
			return false, err
		}
		if own && e.Has(b.place) && e.LSN == b.lsn {
			b.layer, b.other = l.ID, e.Other(b.place)
			return true, nil
		}
		l, ok = a.blocks.Layers.Get(l.MergeInto)
	}
	return false, nil
}

// liveByMap adds to found the other blocks that the map has in a segment, until
// there are most. It goes through the whole map. Entries go from a layer to
// one above it only, so none is missed that was there all the time: layers are
// searched from the bottom up, those that are made meanwhile after the others.
func (a *Array) liveByMap(ctx context.Context, d *device, seg uint32, found []liveBlock, most int) ([]liveBlock, error) {
	known := make(map[format.Place]bool, most)
	for i := range found {
		known[found[i].place] = true
	}
	add := func(layer, page uint64, entries []blockmap.Entry) error {
		for i := range entries {
			e := &entries[i]
			for _, p := range e.Place {
				if p != 0 && p.Device() == d.slot && p.Segment() == seg && !known[p] {
					known[p] = true
					found = append(found, liveBlock{layer: layer, block: page*blockmap.PageBlocks + uint64(e.Off),
						lsn: e.LSN, place: p, other: e.Other(p), crc: e.CRC})
				}
			}
		}
		return nil
	}
	w := walk{a: a, ctx: ctx}
	entries := make([]blockmap.Entry, blockmap.PageBlocks)
	searched := map[uint64]bool{}
	for {
		layers := a.layersUp(searched)
		if len(layers) == 0 {
			return found, nil
		}
		for _, l := range layers {
			searched[l] = true
			pages, err := a.blocks.PagesIn(l, 0, 1<<62, true)
			if err != nil {
				return nil, err
			}
			for _, pg := range pages {
				if len(found) >= most {
					return found, nil
				}
				if err := w.page(l, pg, entries, add); err != nil {
					return nil, err
				}
			}
		}
	}
}

// layersUp returns the layers that have blocks, each after those it stands on,
// without some.
func (a *Array) layersUp(without map[uint64]bool) []uint64 {
	var layers []uint64
	depth := map[uint64]int{}
	for _, l := range a.blocks.Layers.All() {
		if !l.Merged && !without[l.ID] {
			layers = append(layers, l.ID)
			depth[l.ID] = len(a.blocks.Layers.Chain(l.ID))
		}
	}
	slices.SortFunc(layers, func(x, y uint64) int { return cmp.Compare(depth[x], depth[y]) })
	return layers
}
