package memsvc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Spec is what has to be known of an image before its first page.
type Spec struct {
	Name    string
	Source  string // "raw", "elf" or "qemu"
	Machine string
	Blocks  []Block  // offsets may be left zero: blocks follow one another
	Parent  string   // an image of equal size that it begins as; "" for none
	Volumes []string // of the VM: Snapshots takes snapshots of them
}

// Writer writes one image. It is not visible to anybody until Seal; Abort, or the death of the process, leaves
// nothing of it. WritePages and Discard may be called from many goroutines at once, the rest from one. Every
// writer ends with Seal or Abort.
type Writer struct {
	s        *Service
	hidden   string
	manifest *Manifest
	staging  staging
	volume   Volume
	name     string
	ram      int64

	mu    sync.Mutex
	ended bool
}

// Begin makes room for an image.
func (s *Service) Begin(ctx context.Context, spec Spec) (*Writer, error) {
	if err := s.checkName(spec.Name); err != nil {
		return nil, err
	}
	m := &Manifest{Created: time.Now().UTC(), Source: spec.Source, Machine: spec.Machine, Parent: spec.Parent, Blocks: slices.Clone(spec.Blocks)}
	next := int64(0)
	for i := range m.Blocks {
		m.Blocks[i].Offset = next
		next += max(0, m.Blocks[i].Size)
	}
	if err := validateBlocks(m.Blocks); err != nil {
		return nil, fmt.Errorf("image %q: %w", spec.Name, err)
	}
	w := &Writer{s: s, hidden: stagingName(), manifest: m, name: spec.Name, ram: m.RAM(), staging: staging{Image: spec.Name, Since: m.Created}}
	if err := w.checkVolumes(spec.Volumes); err != nil {
		return nil, fmt.Errorf("image %q: %w", spec.Name, err)
	}
	if err := s.take(ctx, spec.Name); err != nil {
		return nil, err
	}
	s.count(func(st *Stats) { st.ImportsActive++ })
	if err := w.create(ctx, spec.Parent); err != nil {
		return nil, errors.Join(fmt.Errorf("image %q: %w", spec.Name, err), w.Abort())
	}
	return w, nil
}

// checkVolumes plans the snapshots.
func (w *Writer) checkVolumes(volumes []string) error {
	if len(volumes) > MaxVolumes {
		return fmt.Errorf("%w: %d volumes, there can be %d", ErrInvalid, len(volumes), MaxVolumes)
	}
	suffix := random()
	for i, name := range volumes {
		v, err := w.s.store.Volume(name)
		if err != nil {
			return err
		}
		if Classify(name, v.Attributes) != ClassVolume || slices.Contains(volumes[:i], name) {
			return fmt.Errorf("%w: %q is named twice, or not a volume", ErrInvalid, name)
		}
		w.staging.Volumes = append(w.staging.Volumes, VolumeRef{Name: name, Snapshot: "image-" + suffix})
	}
	return nil
}

func (w *Writer) create(ctx context.Context, parent string) error {
	raw, err := encodeStaging(w.staging)
	if err != nil {
		return err
	}
	if parent == "" {
		err = w.s.store.Create(ctx, w.hidden, w.ram, raw)
	} else {
		err = w.clone(ctx, parent, raw)
	}
	if err != nil {
		return err
	}
	w.volume, err = w.s.store.Open(w.hidden, "the import of image "+w.name)
	return err
}

// clone begins as the parent's RAM.
func (w *Writer) clone(ctx context.Context, parent string, raw []byte) error {
	info, err := w.s.Get(parent)
	if err != nil {
		return err
	}
	if info.Writable {
		return fmt.Errorf("%w: parent %q is a fork; name the image that it was made from, %q", ErrInvalid, parent, info.Manifest.Parent)
	}
	if info.Manifest.RAM() != w.ram {
		return fmt.Errorf("%w: parent %q has %d bytes of RAM, this image has %d; it must be of the same VM", ErrInvalid, parent, info.Manifest.RAM(), w.ram)
	}
	if err := w.s.store.Clone(ctx, parent, "", w.hidden); err != nil {
		return err
	}
	if err := w.s.store.Update(ctx, w.hidden, VolumeUpdate{Attributes: raw}); err != nil {
		return err
	}
	return w.s.store.Resize(ctx, w.hidden, w.ram, true) // without the parent's device state
}

// Snapshots takes the snapshots of the VM's volumes. Call it while the VM is paused.
func (w *Writer) Snapshots(ctx context.Context) error {
	for _, ref := range w.staging.Volumes {
		if err := w.s.store.Snapshot(ctx, ref.Name, ref.Snapshot); err != nil {
			return fmt.Errorf("image %q: %w", w.name, err)
		}
	}
	w.manifest.Volumes = w.staging.Volumes
	return nil
}

// RAM is the number of bytes of all RAM blocks.
func (w *Writer) RAM() int64 { return w.ram }

// WritePages writes whole pages at offsets in the image, data[i] at offs[i]. Bytes beyond the RAM are refused.
func (w *Writer) WritePages(offs []int64, data [][]byte) error {
	for i, off := range offs {
		if err := w.check(off, int64(len(data[i]))); err != nil {
			return err
		}
	}
	errs := make([]error, len(offs))
	w.volume.WriteBatch(offs, data, errs)
	if err := firstError(errs); err != nil {
		return fmt.Errorf("image %q: %w", w.name, err)
	}
	return nil
}

func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Discard makes holes of whole pages: what was written there before, or came from the parent, is gone.
func (w *Writer) Discard(off, n int64) error {
	if err := w.check(off, n); err != nil {
		return err
	}
	if err := w.volume.Trim(off, n); err != nil {
		return fmt.Errorf("image %q: %w", w.name, err)
	}
	return nil
}

// ReadAt reads RAM as it is now: the parent's, and what was written since.
func (w *Writer) ReadAt(p []byte, off int64) error {
	if err := w.check(off, int64(len(p))); err != nil {
		return err
	}
	return w.volume.ReadAt(p, off)
}

// Extents calls fn with consecutive extents of what is in the image now; see Volume.
func (w *Writer) Extents(off, n int64, fn func(n int64, hole, zero bool) bool) error {
	if err := w.check(off, n); err != nil {
		return err
	}
	return w.volume.Extents(off, n, fn)
}

func (w *Writer) check(off, n int64) error {
	if off < 0 || n < 0 || off%PageSize != 0 || n%PageSize != 0 || off > w.ram || n > w.ram-off {
		return fmt.Errorf("image %q: %w: %d bytes at %d are not pages of its %d bytes of RAM", w.name, ErrInvalid, n, off, w.ram)
	}
	return nil
}
