package lsa

import (
	"errors"
	"fmt"

	"lsad/lsa/blockmap"
)

// VerifyBooks counts what the map holds and compares it with the counts that
// are kept: of each segment, each layer and the whole array. No change gets
// through meanwhile: it is for tests and checks.
func (a *Array) VerifyBooks() error {
	a.commit.mu.Lock()
	defer a.commit.mu.Unlock()
	segments := map[segmentUse]uint32{}
	layers := map[uint64]int64{}
	var used int64
	for _, l := range a.blocks.Layers.All() {
		pages, err := a.blocks.PagesIn(l.ID, 0, 1<<62, true)
		if err != nil {
			return err
		}
		var entries [blockmap.PageBlocks]blockmap.Entry
		for _, pg := range pages {
			if err := a.blocks.Lookup(l.ID, pg*blockmap.PageBlocks, entries[:]); err != nil {
				return err
			}
			for i := range entries {
				e := &entries[i]
				if !e.Own || e.Kind != blockmap.KindData && e.Kind != blockmap.KindZero {
					continue
				}
				used += int64(e.Blocks())
				layers[l.ID] += int64(e.Blocks())
				if p, q := e.Place[0], e.Place[1]; q != 0 && p.Device() == q.Device() {
					return fmt.Errorf("books: both copies of block %d of layer %d are on device %d", pg*blockmap.PageBlocks+uint64(e.Off), l.ID, p.Device())
				}
				for _, p := range e.Place {
					if p != 0 {
						segments[segmentUse{p.Device(), p.Segment()}]++
					}
				}
			}
		}
	}
	return errors.Join(a.compareSegments(segments), a.compareLayers(layers, used))
}

func (a *Array) compareSegments(counted map[segmentUse]uint32) (err error) {
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	for _, d := range a.devs() {
		if d == nil {
			continue
		}
		for i := range d.segs {
			s := &d.segs[i]
			n := counted[segmentUse{d.slot, uint32(i)}]
			if live := s.live.Load(); live != n {
				err = errors.Join(err, fmt.Errorf("books: segment %d of device %d is said to hold %d live blocks, the map has %d there", i, d.slot, live, n))
			}
			if n > 0 && (s.state == segFree || s.state == segReady) {
				err = errors.Join(err, fmt.Errorf("books: segment %d of device %d is %v, the map has %d blocks there", i, d.slot, s.state, n))
			}
		}
	}
	return err
}

func (a *Array) compareLayers(counted map[uint64]int64, used int64) (err error) {
	for id, c := range a.layerSizes {
		if n := c.blocks.Load(); n != counted[id] {
			err = errors.Join(err, fmt.Errorf("books: layer %d is said to have %d blocks, the map has %d", id, n, counted[id]))
		}
		delete(counted, id)
	}
	for id, n := range counted {
		err = errors.Join(err, fmt.Errorf("books: layer %d has %d blocks in the map and is not in the books", id, n))
	}
	if n := a.used.Load(); n != used {
		err = errors.Join(err, fmt.Errorf("books: %d blocks are said to be in use, the map has %d", n, used))
	}
	return err
}
