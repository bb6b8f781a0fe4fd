package memsvc

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"sort"
)

// WorkingSet is the order in which a guest first touched the chunks of its memory after a restore.
type WorkingSet struct {
	ChunkBytes int64   // a power of two, PageSize at least
	Chunks     []int64 // numbers of chunks of the image, each once
}

// WorkingSetInfo says how large a working set is.
type WorkingSetInfo struct {
	ChunkBytes int64
	Chunks     int
}

// storedWorkingSet is a working set as attributes have it: the differences between neighbours as signed varints,
// deflated.
type storedWorkingSet struct {
	ChunkBytes int64  `json:"chunk_bytes"`
	Count      int    `json:"count"`
	Order      string `json:"order"` // base64
}

const (
	maxOrder    = 24 << 10 // bytes of base64
	maxChunks   = 1 << 16
	maxChunk    = 64 << 20 // bytes
	maxInflated = maxChunks * binary.MaxVarintLen64
)

func (w *storedWorkingSet) info() WorkingSetInfo {
	if w == nil {
		return WorkingSetInfo{}
	}
	return WorkingSetInfo{ChunkBytes: w.ChunkBytes, Chunks: w.Count}
}

func (w *WorkingSet) validate(ram int64) error {
	if c := w.ChunkBytes; c < PageSize || c > maxChunk || c&(c-1) != 0 {
		return fmt.Errorf("working set: %w: chunks of %d bytes, want a power of two from %d to %d", ErrInvalid, c, PageSize, maxChunk)
	}
	if len(w.Chunks) > maxChunks {
		return fmt.Errorf("working set: %w: %d chunks, there can be %d", ErrInvalid, len(w.Chunks), maxChunks)
	}
	seen := make(map[int64]bool, len(w.Chunks))
	for _, c := range w.Chunks {
		if c < 0 || c > (ram-1)/w.ChunkBytes || seen[c] {
			return fmt.Errorf("working set: %w: chunk %d is beyond the RAM or named twice", ErrInvalid, c)
		}
		seen[c] = true
	}
	return nil
}

// encodeOrder packs the first n chunks.
func (w *WorkingSet) encodeOrder(n int) (string, error) {
	var raw []byte
	last := int64(0)
	for _, c := range w.Chunks[:n] {
		raw = binary.AppendVarint(raw, c-last)
		last = c
	}
	var packed bytes.Buffer
	z, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		return "", err
	}
	if _, err := z.Write(raw); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(packed.Bytes()), nil
}

// store packs as many chunks, from the first on, as there is room for.
func (w *WorkingSet) store() (*storedWorkingSet, error) {
	var failed error
	n := sort.Search(len(w.Chunks), func(n int) bool {
		order, err := w.encodeOrder(n + 1)
		failed = err
		return err != nil || len(order) > maxOrder
	})
	if failed != nil {
		return nil, failed
	}
	order, err := w.encodeOrder(n)
	return &storedWorkingSet{ChunkBytes: w.ChunkBytes, Count: n, Order: order}, err
}

// load unpacks and checks a stored working set.
func (s *storedWorkingSet) load(ram int64) (*WorkingSet, error) {
	if s.Count < 0 || s.Count > maxChunks || len(s.Order) > maxOrder {
		return nil, fmt.Errorf("working set: %w: %d chunks in %d bytes", ErrDamaged, s.Count, len(s.Order))
	}
	packed, err := base64.StdEncoding.DecodeString(s.Order)
	if err != nil {
		return nil, fmt.Errorf("working set: %w: %w", ErrDamaged, err)
	}
	raw, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxInflated))
	if err != nil {
		return nil, fmt.Errorf("working set: %w: %w", ErrDamaged, err)
	}
	w := &WorkingSet{ChunkBytes: s.ChunkBytes}
	last := int64(0)
	for len(raw) > 0 && len(w.Chunks) < s.Count {
		d, n := binary.Varint(raw)
		if n <= 0 {
			break
		}
		last, raw = last+d, raw[n:]
		w.Chunks = append(w.Chunks, last)
	}
	if len(raw) > 0 || len(w.Chunks) != s.Count {
		return nil, fmt.Errorf("working set: %w: it does not have %d chunks", ErrDamaged, s.Count)
	}
	if err := w.validate(ram); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return w, nil
}

// WorkingSet of an image; it has no chunks if none was recorded.
func (s *Service) WorkingSet(name string) (*WorkingSet, error) {
	v, err := s.lookup(name)
	if err != nil {
		return nil, err
	}
	a, err := decodeAttributes(v.Attributes)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", name, err)
	}
	m, err := a.manifest()
	if err != nil || a.WorkingSet == nil {
		return &WorkingSet{ChunkBytes: PageSize}, err
	}
	w, err := a.WorkingSet.load(m.RAM())
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", name, err)
	}
	return w, nil
}

// SetWorkingSet replaces the working set of an image, and returns how many of its chunks, from the first on, there
// was room for. One without chunks removes it. What is recorded with a fork is kept with the image that it was made
// from too, if that is there, so that later forks have it.
func (s *Service) SetWorkingSet(ctx context.Context, name string, w *WorkingSet) (kept int, err error) {
	kept, err = s.setWorkingSet(ctx, name, w)
	if err != nil || kept == 0 {
		return kept, err
	}
	fork, err := s.Get(name)
	if err != nil || !fork.Writable {
		return kept, err
	}
	image, err := s.Get(fork.Manifest.Parent)
	if err != nil || image.Writable || image.Manifest.RAM() != fork.Manifest.RAM() || !image.Manifest.Created.Equal(fork.Manifest.Created) {
		return kept, nil // it was deleted, or renamed
	}
	_, err = s.setWorkingSet(ctx, image.Name, w)
	return kept, err
}

func (s *Service) setWorkingSet(ctx context.Context, name string, w *WorkingSet) (kept int, err error) {
	err = s.changeAttributes(ctx, name, func(a *attributes, m *Manifest) error {
		if len(w.Chunks) == 0 {
			a.WorkingSet = nil
			return nil
		}
		if err := w.validate(m.RAM()); err != nil {
			return err
		}
		stored, err := w.store()
		if err == nil {
			a.WorkingSet, kept = stored, stored.Count
		}
		return err
	})
	return kept, err
}
