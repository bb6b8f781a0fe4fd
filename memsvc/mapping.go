package memsvc

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/guestmem"
)

// mapping is a source in memory, read-only.
type mapping struct {
	maps  [][]byte
	views []view
}

// view of a part of the source.
type view struct {
	off     int64 // in the source
	data    []byte
	extents []extent // of the source that are not holes
	file    *os.File
	at      int64 // in the file
}

// mapAll maps the source, of which data lists what is not a hole.
func (s *Source) mapAll(data []extent) (*mapping, error) {
	m := &mapping{}
	for i := range s.pieces {
		p := &s.pieces[i]
		if p.FileSize < PageSize {
			continue
		}
		skip := p.Off % PageSize
		raw, err := unix.Mmap(int(p.File.Fd()), p.Off-skip, int(skip+p.FileSize), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("map %s: %w", p.File.Name(), err), m.close())
		}
		m.maps = append(m.maps, raw)
		m.views = append(m.views, view{p.off, raw[skip:][:p.FileSize&^(PageSize-1)], data, p.File, p.Off})
	}
	return m, nil
}

func (m *mapping) close() error {
	var errs []error
	for _, raw := range m.maps {
		errs = append(errs, unix.Munmap(raw))
	}
	m.maps, m.views = nil, nil
	return errors.Join(errs...)
}

// span is a part of an image that is contiguous in the guest too.
type span struct {
	off, size int64
	gpa       uint64
	first     uint64 // number of its first page in the guest's memory
}

// guest is the memory of a guest with these blocks, and where its pages are in the image.
func (m *mapping) guest(blocks []Block) (*guestmem.Memory, []span, error) {
	var ranges []guestmem.Range
	var spans []span
	for i := range blocks {
		at := blocks[i].Offset
		for _, r := range blocks[i].Ranges {
			for _, v := range m.views {
				from, to := max(at, v.off), min(at+r.Size, v.off+int64(len(v.data)))
				if from >= to {
					continue
				}
				gpa := r.GPA + uint64(from-at)
				ranges = append(ranges, guestmem.Range{GPA: gpa, Data: v.data[from-v.off : to-v.off], Extents: v.within(from, to), File: v.file, Off: v.at + from - v.off})
				spans = append(spans, span{off: from, size: to - from, gpa: gpa})
			}
			at += r.Size
		}
	}
	slices.SortFunc(ranges, func(a, b guestmem.Range) int { return cmp.Compare(a.GPA, b.GPA) })
	memory, err := guestmem.NewMemory(ranges)
	if err != nil {
		return nil, nil, err
	}
	for i := range spans {
		spans[i].first, _ = memory.PageAt(spans[i].gpa)
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.off, b.off) })
	return memory, spans, nil
}

// within lists the extents in [from, to) by their distance from from.
func (v *view) within(from, to int64) []guestmem.Extent {
	all := []guestmem.Extent{} // not nil: there may be nothing but holes
	for _, x := range v.extents {
		off, end := max(x.off, from), min(x.end, to)
		if off < end {
			all = append(all, guestmem.Extent{Off: uint64(off - from), Len: uint64(end - off)})
		}
	}
	return all
}
