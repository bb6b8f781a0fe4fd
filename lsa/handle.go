package lsa

import (
	"fmt"
	"sync/atomic"
)

// OpenOptions of OpenVolume.
type OpenOptions struct {
	Client   string // named in refusals to delete and in listings
	ReadOnly bool
}

// Handle is an open volume or snapshot. Its methods may be called from many
// goroutines at once.
type Handle struct {
	a        *Array
	v        *volume
	name     string // as opened
	client   string
	snapshot string // "" for the volume itself
	layer    uint64 // of the snapshot
	size     int64  // of the snapshot
	readOnly bool
	closed   atomic.Bool
}

// OpenVolume opens "volume", or "volume@snapshot" for reading.
func (a *Array) OpenVolume(name string, o OpenOptions) (*Handle, error) {
	a.admin.Lock()
	defer a.admin.Unlock()
	volume, snap, err := splitName(name)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	v, err := a.catalog.find(volume)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	h := &Handle{a: a, v: v, name: name, client: o.Client, snapshot: snap, readOnly: o.ReadOnly || snap != "" || v.Sealed || a.readOnly}
	if snap != "" {
		s := v.snapshot(snap)
		if s == nil {
			return nil, fmt.Errorf("open: snapshot %q %w", name, ErrNotFound)
		}
		h.layer, h.size = s.Layer, s.Size
	}
	a.catalog.mu.Lock()
	v.handles[h] = true
	a.catalog.mu.Unlock()
	return h, nil
}

// Close ends the use of the volume. It does not flush.
func (h *Handle) Close() error {
	if h.closed.Swap(true) {
		return nil
	}
	h.a.catalog.mu.Lock()
	delete(h.v.handles, h)
	h.a.catalog.mu.Unlock()
	return nil
}

// Size in bytes. It may grow while the handle is open.
func (h *Handle) Size() int64 {
	if h.snapshot != "" {
		return h.size
	}
	return h.v.size.Load()
}

// ReadOnly says whether writes are refused.
func (h *Handle) ReadOnly() bool { return h.readOnly }

// Volume is the identity of the volume, whatever it is called now; no other ever has it.
func (h *Handle) Volume() uint64 { return h.v.ID }

// Layer is the identity of what a snapshot holds, 0 for the volume itself.
func (h *Handle) Layer() uint64 { return h.layer }

// Turns is how often the content of the volume became another one without being written.
func (h *Handle) Turns() uint64 {
	h.a.catalog.mu.Lock()
	defer h.a.catalog.mu.Unlock()
	return h.v.Turns
}

// head is the layer that the handle reads.
func (h *Handle) head() uint64 {
	if h.snapshot != "" {
		return h.layer
	}
	return h.v.head.Load()
}

func (h *Handle) check(what string, off, n int64, write bool) error {
	switch {
	case h.closed.Load():
		return fmt.Errorf("%s volume %q: handle is %w", what, h.name, ErrClosed)
	case write && h.readOnly:
		return fmt.Errorf("%s volume %q: %w", what, h.name, ErrReadOnly)
	case off < 0 || n < 0 || off > h.Size() || n > h.Size()-off:
		return fmt.Errorf("%s volume %q: %w: %d bytes at %d, it has %d", what, h.name, ErrInvalid, n, off, h.Size())
	}
	return nil
}
