package lsa

import (
	"context"
	"runtime"
	"slices"
	"sort"
	"sync"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// claim is a block that the map has in a segment.
type claim struct {
	layer, block, lsn uint64
	sector, crc       uint32
}

// verifyData reads every block that the map has and checks it. It goes through
// the map once for each group of segments that have as many blocks as fit
// into memory, then reads those segments from front to back.
func (c *checker) verifyData(ctx context.Context) error {
	var all []segmentUse
	for u := range c.counts {
		all = append(all, u)
	}
	sort.Slice(all, func(i, j int) bool {
		return all[i].slot < all[j].slot || all[i].slot == all[j].slot && all[i].seg < all[j].seg
	})
	for len(all) > 0 {
		n, blocks := 0, 0
		for n < len(all) && (n == 0 || blocks+c.counts[all[n]] <= c.limit) {
			blocks += c.counts[all[n]]
			n++
		}
		claims, err := c.claims(ctx, all[:n])
		if err != nil {
			return err
		}
		if err := c.verifySegments(ctx, all[:n], claims); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// claims collects what the map has in the segments.
func (c *checker) claims(ctx context.Context, segments []segmentUse) (map[segmentUse][]claim, error) {
	claims := make(map[segmentUse][]claim, len(segments))
	for _, u := range segments {
		claims[u] = make([]claim, 0, c.counts[u])
	}
	err := c.a.blocks.Each(func(k blockmap.Key, entries []blockmap.Entry, err error) error {
		if err != nil {
			return ctx.Err() // reported by countMap
		}
		for i := range entries {
			e := &entries[i]
			if e.Kind != blockmap.KindData {
				continue
			}
			for _, p := range e.Place {
				u := segmentUse{p.Device(), p.Segment()}
				d := c.a.devOf(p)
				if list, ok := claims[u]; ok && p != 0 && d.holds(p, 1) {
					claims[u] = append(list, claim{k.Layer, k.Page*blockmap.PageBlocks + uint64(e.Off), e.LSN, p.Sector(), e.CRC})
				}
			}
		}
		return ctx.Err()
	})
	return claims, err
}

func (c *checker) verifySegments(ctx context.Context, segments []segmentUse, claims map[segmentUse][]claim) error {
	next := make(chan segmentUse)
	var wg sync.WaitGroup
	for range min(len(segments), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			buf, header := make([]byte, windowBytes), make([]byte, format.MaxHeader)
			for u := range next {
				d := c.a.devs()[u.slot]
				v := segmentCheck{c: c, ctx: ctx, d: d, seg: u.seg, claims: claims[u], header: header}
				v.window = window{dev: d.dev, base: d.offset(u.seg, 0), size: d.segBytes, buf: buf}
				v.run()
			}
		})
	}
	for _, u := range segments {
		if ctx.Err() != nil {
			break
		}
		next <- u
	}
	close(next)
	wg.Wait()
	return ctx.Err()
}

// segmentCheck checks the blocks that the map has in one segment.
type segmentCheck struct {
	c      *checker
	ctx    context.Context
	d      *device
	seg    uint32
	claims []claim // in order of sector; those before at were met
	at     int
	header []byte
	window window
	lsn    uint64 // of the entry that is being looked at
	sector uint32 // of its next block
}

func (v *segmentCheck) run() {
	slices.SortFunc(v.claims, func(x, y claim) int { return int(x.sector) - int(y.sector) })
	for i := 1; i < len(v.claims); i++ {
		x, y := &v.claims[i-1], &v.claims[i]
		if y.sector < x.sector+format.BlockSectors {
			v.c.add("map", v.c.block(y.layer, y.block), "%s is also that of %s", v.c.placeName(v.place(y)), v.c.block(x.layer, x.block))
		}
	}
	used := v.d.segs[v.seg].used
	if v.c.partial {
		used = v.d.segSectors()
	}
	for at := uint32(0); at < used && v.at < len(v.claims) && v.ctx.Err() == nil; {
		h, ok := v.recordAt(at)
		if !ok {
			at++
			continue
		}
		v.record(&h)
		at += h.TotalSectors()
	}
	v.missUntil(v.d.segSectors())
	v.c.verified(len(v.claims))
}

// recordAt returns the record that begins at a sector, if one does.
func (v *segmentCheck) recordAt(at uint32) (h format.RecordHeader, ok bool) {
	first, err := v.window.at(at, format.SectorSize)
	if err != nil {
		return h, false
	}
	h, ok = format.PeekRecordHeader(first)
	if !ok || h.Device != uint16(v.d.slot) || h.Segment != v.seg || h.Sector != at ||
		h.Generation != v.d.segs[v.seg].generation || at+h.TotalSectors() > v.d.segSectors() {
		return h, false
	}
	header, err := v.window.at(at, int(h.Sectors)*format.SectorSize)
	if err != nil || !format.CheckRecordHeader(header, &h, v.c.a.super.secret) {
		return h, false
	}
	v.header = append(v.header[:0], header...) // the window moves on
	return h, true
}

// record checks the claims to blocks of one record.
func (v *segmentCheck) record(h *format.RecordHeader) {
	v.lsn, v.sector = h.FirstLSN, h.Sector+uint32(h.Sectors)
	err := format.DecodeEntries(v.header, h, func(e *format.Entry) error {
		for i := range e.DataBlocks() {
			v.missUntil(v.sector)
			if v.at < len(v.claims) && v.claims[v.at].sector == v.sector {
				v.met(&v.claims[v.at], e, i)
				v.at++
			}
			v.sector += format.BlockSectors
		}
		v.lsn++
		return nil
	})
	if err != nil {
		v.c.addAt("record", format.MakePlace(v.d.slot, v.seg, h.Sector), "%v", err)
	}
}

// missUntil reports the claims before a sector that were met by no record, and
// checks their data. Collections find live blocks by their records.
func (v *segmentCheck) missUntil(sector uint32) {
	for v.at < len(v.claims) && v.claims[v.at].sector < sector && v.ctx.Err() == nil {
		cl := &v.claims[v.at]
		v.c.addAt("record", v.place(cl), "no intact record has the block there that the map has (%s); collecting the segment takes a search of the whole map", v.c.block(cl.layer, cl.block))
		v.data(cl)
		v.at++
	}
}

// met checks a claim to the i-th block of an entry.
func (v *segmentCheck) met(cl *claim, e *format.Entry, i int) {
	lsn := v.lsn
	if e.Kind == format.EntryMove {
		lsn = e.OldLSN
	}
	if e.Block+uint64(i) != cl.block || lsn != cl.lsn || e.CRC(i) != cl.crc || !v.forwards(e.Layer, cl.layer) {
		v.c.addAt("record", v.place(cl), "the record has block %d of layer %d, LSN %d, there; the map has block %d of layer %d, LSN %d",
			e.Block+uint64(i), e.Layer, lsn, cl.block, cl.layer, cl.lsn)
	}
	v.data(cl)
}

// forwards says whether blocks written to one layer may be in another now.
func (v *segmentCheck) forwards(from, to uint64) bool {
	for from != to {
		l, ok := v.c.a.blocks.Layers.Get(from)
		if !ok {
			return false
		}
		from = l.MergeInto
	}
	return true
}

func (v *segmentCheck) data(cl *claim) {
	p, err := v.window.at(cl.sector, format.BlockSize)
	if err != nil {
		v.c.addAt("data", v.place(cl), "%s: %v", v.c.block(cl.layer, cl.block), err)
		return
	}
	if got := format.Checksum(p); got != cl.crc {
		v.c.addAt("data", v.place(cl), "%s: checksum %08x, the map has %08x", v.c.block(cl.layer, cl.block), got, cl.crc)
	}
}

func (v *segmentCheck) place(cl *claim) format.Place {
	return format.MakePlace(v.d.slot, v.seg, cl.sector)
}
