package memsvc

import (
	"context"
	"errors"
	"fmt"
)

// Summary is what is known of an image when all of it was written.
type Summary struct {
	Kernel  string
	Pages   PageCounts
	Elision Elision
	Steps   []Step
}

// Seal makes the image what everybody sees, in one durable step. If it fails the image is gone, as after Abort.
func (w *Writer) Seal(ctx context.Context, sum Summary) (Info, error) {
	w.manifest.Kernel, w.manifest.Pages, w.manifest.Elision, w.manifest.Steps = sum.Kernel, sum.Pages, sum.Elision, sum.Steps
	if err := w.seal(ctx); err != nil {
		return Info{}, errors.Join(fmt.Errorf("image %q: %w", w.name, err), w.Abort())
	}
	w.end()
	w.s.count(func(st *Stats) {
		st.Imports++
		st.StoredBytes += (sum.Pages.InUse - sum.Pages.Shared) * PageSize
		st.FreeBytes += sum.Pages.Free * PageSize
		st.ZeroBytes += sum.Pages.Zero * PageSize
	})
	return w.s.Get(w.name)
}

func (w *Writer) seal(ctx context.Context) error {
	text, err := w.manifest.encode()
	if err != nil {
		return err
	}
	if err := w.volume.Flush(); err != nil {
		return err
	}
	// A volume that is open for writing cannot be sealed.
	if err := w.closeVolume(); err != nil {
		return err
	}
	return w.s.publish(ctx, w.hidden, w.name, imageAttributes(text), true)
}

func (w *Writer) closeVolume() error {
	if w.volume == nil {
		return nil
	}
	err := w.volume.Close()
	w.volume = nil
	return err
}

// end gives the name back; it says whether that was news.
func (w *Writer) end() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return false
	}
	w.ended = true
	w.s.give(w.name)
	w.s.count(func(st *Stats) { st.ImportsActive-- })
	return true
}

// Abort deletes what was written, and the snapshots. After Seal it does nothing.
func (w *Writer) Abort() error {
	if !w.end() {
		return nil
	}
	w.s.count(func(st *Stats) { st.ImportsFailed++ })
	err := w.closeVolume()
	err = errors.Join(err, w.s.deleteStaging(context.Background(), w.hidden, w.staging))
	if err != nil {
		return fmt.Errorf("image %q: what was imported of it could not be deleted, the next start of the server will: %w", w.name, err)
	}
	return nil
}
