package crash

import (
	"encoding/binary"
	"fmt"
)

const (
	blockSize = 4096
	// cellSize is the smallest thing that the workload writes, in bytes.
	cellSize      = 512
	cellsPerBlock = blockSize / cellSize
)

// tag names a write; 0 stands for zeros. Every cell that the write made holds it.
type tag uint64

// fillCell makes the contents of cell number n of a volume as written under t.
func fillCell(p []byte, t tag, n int) {
	if t == 0 {
		clear(p[:cellSize])
		return
	}
	le := binary.LittleEndian
	le.PutUint64(p, uint64(t))
	le.PutUint64(p[8:], uint64(n))
	x := cellHash(t, n)
	for i := 16; i < cellSize; i += 8 {
		le.PutUint64(p[i:], x)
		x += 0x9e3779b97f4a7c15
	}
}

// readCell returns the write that made the contents of cell n, or an error if
// these are not what a write made there, whole.
func readCell(p []byte, n int) (tag, error) {
	le := binary.LittleEndian
	t := tag(le.Uint64(p))
	if t == 0 {
		for i := 0; i < cellSize; i += 8 {
			if le.Uint64(p[i:]) != 0 {
				return 0, fmt.Errorf("zeros with something else at byte %d", i)
			}
		}
		return 0, nil
	}
	if at := le.Uint64(p[8:]); at != uint64(n) {
		return t, fmt.Errorf("write %d made this for cell %d", t, at)
	}
	x := cellHash(t, n)
	for i := 16; i < cellSize; i += 8 {
		if le.Uint64(p[i:]) != x {
			return t, fmt.Errorf("write %d, changed at byte %d", t, i)
		}
		x += 0x9e3779b97f4a7c15
	}
	return t, nil
}

func cellHash(t tag, n int) uint64 {
	x := uint64(t)*0xbf58476d1ce4e5b9 ^ uint64(n)*0x94d049bb133111eb
	return x ^ x>>31
}
