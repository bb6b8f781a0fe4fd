package kvmhook

import (
	"errors"
	"fmt"
)

// recordChunk is the unit in which first touches are recorded, in bytes.
const recordChunk = 64 << 10

// ErrWorkingSet says that a working set is wrong.
var ErrWorkingSet = errors.New("working set")

// WorkingSet is the order in which a guest first touched parts of its memory after an earlier restore.
type WorkingSet struct {
	ChunkBytes int64   `json:"chunk_bytes"` // a power of two, 4 KiB to 64 MiB
	Chunks     []int64 `json:"chunks"`      // numbers of chunks of the image
}

func (w *WorkingSet) validate(image int64) error {
	if c := w.ChunkBytes; c < blockSize || c > 64<<20 || c&(c-1) != 0 {
		return fmt.Errorf("%w: chunks of %d bytes, want a power of two from 4 KiB to 64 MiB", ErrWorkingSet, c)
	}
	for _, c := range w.Chunks {
		if c < 0 || c > (image-1)/w.ChunkBytes {
			return fmt.Errorf("%w: chunk %d lies beyond an image of %d bytes; was it recorded from another one?", ErrWorkingSet, c, image)
		}
	}
	return nil
}

// recorder remembers the order of first touches. Hook.mu guards it.
type recorder struct {
	seen  map[int64]bool
	order []int64
}

// touched notes a page for which content had to be fetched.
func (h *Hook) touched(a at) {
	if !h.o.Record {
		return
	}
	chunk := a.m.imageOffset(a.page) / recordChunk
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.recorder.seen == nil {
		h.recorder.seen = make(map[int64]bool)
	}
	if !h.recorder.seen[chunk] {
		h.recorder.seen[chunk] = true
		h.recorder.order = append(h.recorder.order, chunk)
	}
}

// Recorded is the working set recorded so far.
func (h *Hook) Recorded() *WorkingSet {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &WorkingSet{ChunkBytes: recordChunk, Chunks: append([]int64(nil), h.recorder.order...)}
}
