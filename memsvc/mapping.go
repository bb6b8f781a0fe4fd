package memsvc

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// maxMappings is how many extents of files are mapped one by one; the kernel allows 65,530 in a process.
const maxMappings = 8192

// mapping is a source in memory, read-only.
type mapping struct {
	maps  [][]byte
	views []view
}

// view of a part of the source.
type view struct {
	off  int64 // in the source
	data []byte
}

// mapAll maps the source, of which data lists what is not a hole.
func (s *Source) mapAll(data []extent) (*mapping, error) {
	m := &mapping{}
	for i := range s.pieces {
		p := &s.pieces[i]
		if p.FileSize < PageSize {
			continue
		}
		add := m.sparse
		if p.Off%PageSize != 0 || len(data) > maxMappings {
			add = m.whole
		}
		if err := add(p, data); err != nil {
			return nil, errors.Join(fmt.Errorf("map %s: %w", p.File.Name(), err), m.close())
		}
	}
	return m, nil
}

// whole maps all of a piece's file part.
func (m *mapping) whole(p *Piece, _ []extent) error {
	skip := p.Off % PageSize
	raw, err := unix.Mmap(int(p.File.Fd()), p.Off-skip, int(skip+p.FileSize), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m.maps = append(m.maps, raw)
	m.views = append(m.views, view{p.off, raw[skip:][:p.FileSize&^(PageSize-1)]})
	return nil
}

// sparse maps what has data, and nothing where the file has holes: reading a mapped hole makes a file in memory
// (tmpfs) allocate it.
func (m *mapping) sparse(p *Piece, data []extent) error {
	raw, err := unix.Mmap(-1, 0, int(p.FileSize), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	m.maps = append(m.maps, raw)
	m.views = append(m.views, view{p.off, raw[:p.FileSize&^(PageSize-1)]})
	for _, x := range data {
		off, end := max(x.off, p.off)-p.off, min(x.end-p.off, p.FileSize)
		if off >= end {
			continue
		}
		if err := mapOver(raw[off:end], p.File, p.Off+off); err != nil {
			return err
		}
	}
	return nil
}

func (m *mapping) close() error {
	var errs []error
	for _, raw := range m.maps {
		errs = append(errs, unix.Munmap(raw))
	}
	m.maps, m.views = nil, nil
	return errors.Join(errs...)
}

// regions says where what is mapped is in a guest with these blocks, in order of addresses.
func (m *mapping) regions(blocks []Block) []Region {
	var all []Region
	for i := range blocks {
		at := blocks[i].Offset
		for _, r := range blocks[i].Ranges {
			for _, v := range m.views {
				from, to := max(at, v.off), min(at+r.Size, v.off+int64(len(v.data)))
				if from < to {
					all = append(all, Region{GPA: r.GPA + uint64(from-at), Data: v.data[from-v.off : to-v.off]})
				}
			}
			at += r.Size
		}
	}
	slices.SortFunc(all, func(a, b Region) int { return cmp.Compare(a.GPA, b.GPA) })
	return all
}
