package kvmhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Region is a mapping as a VMM describes it.
type Region struct {
	Base     uint64 // address in the VMM, a multiple of the page size
	Size     uint64 // bytes, a multiple of the page size
	Offset   uint64 // where its content begins in the image, in bytes, a multiple of 4 KiB
	PageSize uint64 // 4 KiB or 2 MiB
}

const (
	// maxHandshake bounds the description of all mappings, in bytes.
	maxHandshake = 256 << 10
	// maxRegions bounds how many there are.
	maxRegions = 1024

	smallPage = 4 << 10
	hugePage  = 2 << 20

	// maxAddress is the end of the addresses of a process, with five-level page tables.
	maxAddress = 1 << 56
)

// wireRegion is a mapping as Firecracker writes it. Up to 1.6 there are the first three fields. 1.7 added
// page_size_kib, which holds bytes in spite of its name; 1.12 added page_size, in bytes, and 2.0 is to drop the other.
type wireRegion struct {
	Base        *uint64 `json:"base_host_virt_addr"`
	Size        *uint64 `json:"size"`
	Offset      *uint64 `json:"offset"`
	PageSizeKib *uint64 `json:"page_size_kib"`
	PageSize    *uint64 `json:"page_size"`
}

// errIncomplete says that the end of the description has not come yet.
var errIncomplete = errors.New("incomplete")

// parseRegions reads the JSON array that a VMM sends, and checks each element by itself. It returns errIncomplete for
// what may become one.
func parseRegions(p []byte) ([]Region, error) {
	if t := bytes.TrimLeft(p, " \t\r\n"); len(t) > 0 && t[0] != '[' {
		return nil, fmt.Errorf("%w: want a JSON array of mappings, got %.40q", ErrHandshake, t)
	}
	dec := json.NewDecoder(bytes.NewReader(p))
	var wire []wireRegion
	switch err := dec.Decode(&wire); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errIncomplete
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	if rest := bytes.TrimSpace(p[dec.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("%w: %.40q after the mappings", ErrHandshake, rest)
	}
	if len(wire) == 0 || len(wire) > maxRegions {
		return nil, fmt.Errorf("%w: %d mappings, want 1 to %d", ErrHandshake, len(wire), maxRegions)
	}
	regions := make([]Region, len(wire))
	for i, w := range wire {
		r, err := w.region()
		if err != nil {
			return nil, fmt.Errorf("%w: mapping %d: %w", ErrHandshake, i, err)
		}
		regions[i] = r
	}
	return regions, nil
}

func (w *wireRegion) region() (Region, error) {
	if w.Base == nil || w.Size == nil || w.Offset == nil {
		return Region{}, errors.New("base_host_virt_addr, size or offset is missing")
	}
	r := Region{Base: *w.Base, Size: *w.Size, Offset: *w.Offset, PageSize: smallPage}
	switch {
	case w.PageSize != nil && w.PageSizeKib != nil && *w.PageSize != *w.PageSizeKib:
		return Region{}, fmt.Errorf("page_size says %d and page_size_kib %d", *w.PageSize, *w.PageSizeKib)
	case w.PageSize != nil:
		r.PageSize = *w.PageSize
	case w.PageSizeKib != nil:
		r.PageSize = *w.PageSizeKib
	}
	if r.PageSize != smallPage && r.PageSize != hugePage {
		return Region{}, fmt.Errorf("pages of %d bytes; there can be %d and %d", r.PageSize, smallPage, hugePage)
	}
	if r.Size == 0 || r.Base%r.PageSize != 0 || r.Size%r.PageSize != 0 || r.Offset%blockSize != 0 {
		return Region{}, fmt.Errorf("%d bytes at %#x, offset %d, are not whole pages of %d bytes", r.Size, r.Base, r.Offset, r.PageSize)
	}
	if r.Base >= maxAddress || r.Size > maxAddress-r.Base {
		return Region{}, fmt.Errorf("%d bytes at %#x do not fit into an address space", r.Size, r.Base)
	}
	return r, nil
}

// checkRegions checks all mappings together and against the size of the image, in bytes.
func checkRegions(regions []Region, image int64) error {
	for i, r := range regions {
		if r.Offset > uint64(image) || r.Size > uint64(image)-r.Offset {
			return fmt.Errorf("%w: mapping %d needs bytes %d to %d of an image of %d; is it the image of another VM?",
				ErrHandshake, i, r.Offset, r.Offset+r.Size, image)
		}
	}
	for what, of := range map[string]func(Region) uint64{
		"addresses": func(r Region) uint64 { return r.Base },
		"image":     func(r Region) uint64 { return r.Offset },
	} {
		sorted := slices.SortedFunc(slices.Values(regions), func(a, b Region) int {
			if of(a) < of(b) {
				return -1
			}
			return 1
		})
		for i := 1; i < len(sorted); i++ {
			if a, b := sorted[i-1], sorted[i]; of(a)+a.Size > of(b) {
				return fmt.Errorf("%w: mappings overlap in the %s, at %#x", ErrHandshake, what, of(b))
			}
		}
	}
	return nil
}
