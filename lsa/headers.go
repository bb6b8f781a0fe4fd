package lsa

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"lsad/lsa/format"
)

// headerWindow reads the sectors of a segment from front to back, many at once: the headers of short records lie so
// close together that one read brings many of them.
type headerWindow struct {
	d     *device
	seg   uint32
	at    uint32 // sector where buf begins
	buf   []byte
	alone uint32 // up to this sector only what is asked for is read: there is one before it that cannot be
}

// windows keeps those whose memory is not in use.
var windows = sync.Pool{New: func() any { return new(headerWindow) }}

// sectors returns n sectors from at on, which lie in the segment, valid until the next call. A sector further on that
// cannot be read does not matter.
func (w *headerWindow) sectors(at, n uint32) ([]byte, error) {
	if have := uint32(len(w.buf) / format.SectorSize); at < w.at || at+n > w.at+have {
		many := min(w.d.segSectors()-at, max(n, spanBytes/format.SectorSize))
		if at < w.alone {
			many = n
		}
		err := w.read(at, many)
		if err != nil && many > n {
			w.alone = at + many
			err = w.read(at, n)
		}
		if err != nil {
			return nil, err
		}
	}
	return w.buf[int(at-w.at)*format.SectorSize:][:n*format.SectorSize], nil
}

func (w *headerWindow) read(at, n uint32) error {
	size := int(n) * format.SectorSize
	w.buf, w.at = slices.Grow(w.buf[:0], size)[:size], at
	err := w.d.dev.ReadAt(w.buf, w.d.offset(w.seg, at))
	if err != nil {
		w.buf = w.buf[:0]
	}
	return err
}

// errUnreadable: not one sector of a segment that was tried could be read.
var errUnreadable = errors.New("nothing of it can be read")

// longestHop is the most sectors, 1 MiB, that are stepped over where several that were tried could not be read: each
// try may take a disk seconds.
const longestHop = 2048

// eachHeader reads the headers of a segment's records, hopping over the data of long ones. skipped says that it
// stepped over something that is no sound header or cannot be read: there may be records that it did not find.
func (a *Array) eachHeader(d *device, seg, used uint32, generation uint64, fn func(h *format.RecordHeader, header []byte) error) (skipped bool, err error) {
	w := windows.Get().(*headerWindow)
	*w = headerWindow{d: d, seg: seg, buf: w.buf[:0]}
	defer windows.Put(w)
	var failed error
	readable, hop := used == 0, uint32(1)
	for at := uint32(0); at < used; {
		h, header, err := a.headerAt(w, at, generation)
		switch {
		case err != nil:
			skipped, failed = true, err
			at += hop
			hop = min(2*hop, longestHop)
			continue
		case header == nil:
			skipped = true
			at++
		default:
			if err := fn(&h, header); err != nil {
				return skipped, err
			}
			at += h.TotalSectors()
		}
		readable, hop = true, 1
	}
	if !readable {
		return true, fmt.Errorf("%w: %w", errUnreadable, failed)
	}
	return skipped, nil
}

// headerAt returns the header at a sector, or none if there is no sound one.
func (a *Array) headerAt(w *headerWindow, at uint32, generation uint64) (h format.RecordHeader, header []byte, err error) {
	first, err := w.sectors(at, 1)
	if err != nil {
		return h, nil, err
	}
	h, ok := format.PeekRecordHeader(first)
	if !ok || h.Segment != w.seg || h.Sector != at || h.Generation != generation || at+h.TotalSectors() > w.d.segSectors() {
		return h, nil, nil
	}
	header, err = w.sectors(at, uint32(h.Sectors))
	if err != nil || !format.CheckRecordHeader(header, &h, a.super.secret) {
		return h, nil, err
	}
	return h, header, nil
}
