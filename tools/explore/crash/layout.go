package crash

import (
	"errors"
	"fmt"
	"sort"
	"sync"

	"lsad/lsa"
)

// The model's blocks lie in islands that straddle the borders of map pages
// (of 1,024 blocks), far from each other in the volume; what lies between is
// never written.
const (
	islandBlocks = 32
	pageBlocks   = 1024
	islandStart  = pageBlocks - 24
)

// offset in bytes of a cell in its volume.
func offset(cell int) int64 {
	block := cell / cellsPerBlock
	at := int64(block/islandBlocks)*pageBlocks + islandStart + int64(block%islandBlocks)
	return at*blockSize + int64(cell%cellsPerBlock)*cellSize
}

// volumeBytes is the size of a volume of so many of the model's blocks.
func volumeBytes(blocks int) int64 {
	return (int64(blocks/islandBlocks)*pageBlocks + pageBlocks/2) * blockSize
}

var islandBuffers = sync.Pool{New: func() any { return new([islandBlocks * blockSize]byte) }}

// unreadable stands for what could not be read.
const unreadable = ^tag(0)

// readTags returns what a volume or a snapshot holds. mayFail: some blocks of it
// may be unreadable.
func readTags(a *lsa.Array, name string, blocks int, mayFail bool) ([]tag, error) {
	h, err := a.OpenVolume(name, lsa.OpenOptions{Client: "oracle", ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	tags := make([]tag, blocks*cellsPerBlock)
	const cells = islandBlocks * cellsPerBlock
	buf := islandBuffers.Get().(*[cells * cellSize]byte)[:]
	defer islandBuffers.Put((*[cells * cellSize]byte)(buf))
	for at := 0; at < len(tags); at += cells {
		holes := false
		if err := h.ReadAt(buf, offset(at)); err != nil {
			if holes = true; !mayFail {
				return nil, err
			}
			if err := readBlocks(h, buf, at, tags); err != nil {
				return nil, err
			}
		}
		for i := range cells {
			if tags[at+i] == unreadable {
				continue
			}
			if tags[at+i], err = readCell(buf[i*cellSize:][:cellSize], at+i); err != nil {
				return nil, fmt.Errorf("%s: wrong bytes in block %d, cell %d: %w", name, (at+i)/cellsPerBlock, at+i, err)
			}
		}
		if at == 0 && !holes { // a sample
			if err := checkExtents(h, name, at, tags); err != nil {
				return nil, err
			}
		}
	}
	return tags, nil
}

// readBlocks reads an island block by block, and notes what cannot be read.
func readBlocks(h *lsa.Handle, buf []byte, at int, tags []tag) error {
	for b := range islandBlocks {
		err := h.ReadAt(buf[b*blockSize:][:blockSize], offset(at+b*cellsPerBlock))
		if err == nil {
			continue
		}
		if !errors.Is(err, lsa.ErrDamaged) && !errors.Is(err, lsa.ErrMissingDevice) && !errors.Is(err, errDead) {
			return err
		}
		for i := range cellsPerBlock {
			tags[at+b*cellsPerBlock+i] = unreadable
		}
	}
	return nil
}

// checkExtents: what is said to be zero in an island is.
func checkExtents(h *lsa.Handle, name string, at int, tags []tag) (err error) {
	end := offset(at) + islandBlocks*blockSize
	pos := offset(at)
	walk := h.Extents(pos, end-pos, func(n int64, hole, zero bool) bool {
		for i := at + int(pos-offset(at))/cellSize; zero && i < at+int(pos+n-offset(at))/cellSize; i++ {
			if tags[i] != 0 {
				err = fmt.Errorf("%s: cell %d holds write %d and is reported as zero", name, i, tags[i])
			}
		}
		pos += n
		return true
	})
	if walk != nil {
		return walk
	}
	if pos != end {
		return fmt.Errorf("%s: extents of an island end at %d of %d", name, pos, end)
	}
	return err
}

func sortVolumes(all []*volume) {
	sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })
}
