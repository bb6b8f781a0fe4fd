package lsa

import (
	"context"
	"fmt"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// countMap looks at every entry of the map and counts what each segment and
// layer has.
func (c *checker) countMap(ctx context.Context) error {
	layers := map[uint64]int64{}
	err := c.a.blocks.Each(func(k blockmap.Key, entries []blockmap.Entry, err error) error {
		if err != nil {
			c.add("map", pageName(k), "%v", err)
			c.partial = true // its blocks cannot be counted
			return ctx.Err()
		}
		l, ok := c.a.blocks.Layers.Get(k.Layer)
		if !ok || l.Merged || k.Page >= format.MaxVolumeBlocks/blockmap.PageBlocks {
			c.add("map", pageName(k), "there is no such layer or page")
			return ctx.Err()
		}
		for i := range entries {
			e := &entries[i]
			layers[k.Layer] += int64(e.Blocks())
			c.checkEntry(k, e)
		}
		return ctx.Err()
	})
	if err != nil || c.partial {
		return err
	}
	for _, l := range c.a.blocks.Layers.All() {
		if n := c.a.layerCount(l.ID).blocks.Load(); n != layers[l.ID] {
			c.add("layer", fmt.Sprint("layer ", l.ID), "the books say %d blocks, the map has %d", n, layers[l.ID])
		}
	}
	return nil
}

func pageName(k blockmap.Key) string { return fmt.Sprintf("page %d of layer %d", k.Page, k.Layer) }

func (c *checker) checkEntry(k blockmap.Key, e *blockmap.Entry) {
	where := func() string { return c.block(k.Layer, k.Page*blockmap.PageBlocks+uint64(e.Off)) }
	if e.LSN == 0 || e.LSN > c.a.recovery.CutLSN && !c.partial {
		c.add("map", where(), "mapped by LSN %d, the log has 1 to %d", e.LSN, c.a.recovery.CutLSN)
	}
	if e.Kind != blockmap.KindData {
		return
	}
	if p, q := e.Place[0], e.Place[1]; q != 0 && p.Device() == q.Device() {
		c.add("map", where(), "both copies are on one device: %s and %s", c.placeName(p), c.placeName(q))
	}
	lost := true
	for i, p := range e.Place {
		if p == 0 && i > 0 {
			continue
		}
		lost = lost && c.a.gone(p)
		if int(p.Device()) >= len(c.a.devs()) {
			c.add("map", where(), "%v: there is no such device", p)
			continue
		}
		d := c.a.devs()[p.Device()]
		if d == nil {
			continue // absent: the array is looked at without it
		}
		if what := c.misplaced(d, p); what != "" {
			c.add("map", where(), "%s: %s", c.placeName(p), what)
			continue
		}
		c.counts[segmentUse{d.slot, p.Segment()}]++
		c.total += format.BlockSize
	}
	if lost {
		c.add("data", where(), "it went with the device of slot %d; no other copy is left", e.Place[0].Device())
	}
}

// gone says whether the device of p left the array for good.
func (a *Array) gone(p format.Place) bool {
	slot := int(p.Device())
	return slot < len(a.super.rows) && a.devs()[slot] == nil && a.super.rows[slot].State == format.DeviceGone
}

// misplaced says why no block can lie at p, "" if one can.
func (c *checker) misplaced(d *device, p format.Place) string {
	if !d.holds(p, 1) {
		return "beyond the end of the segment or the device"
	}
	s := &d.segs[p.Segment()]
	switch {
	case c.partial:
		return ""
	case s.state == segFree:
		return "the segment is not in use"
	case p.Sector()+format.BlockSectors > s.used:
		return fmt.Sprintf("the segment ends at sector %d", s.used)
	}
	return ""
}

// compareCounts checks the segment table against the map.
func (c *checker) compareCounts() {
	for _, d := range c.a.devs() {
		if d == nil {
			continue
		}
		for i := range d.segs {
			n := c.counts[segmentUse{d.slot, uint32(i)}]
			if n > 0 {
				c.report.Segments++
			}
			if live := int(d.segs[i].live.Load()); live != n && !c.partial {
				c.add("segment", segmentName(d, uint32(i)), "the books say %d live blocks, the map has %d", live, n)
			}
		}
	}
}

func segmentName(d *device, seg uint32) string {
	return fmt.Sprintf("device %s segment %d", d.dev.Name(), seg)
}
