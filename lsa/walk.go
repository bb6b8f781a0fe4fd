package lsa

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// walk goes through what layers map, page by page, at a bounded rate. It is
// what a rebuild and a scrub have in common. Changes go on meanwhile.
type walk struct {
	a      *Array
	ctx    context.Context
	rate   int64 // bytes a second that are read or written, 0 for no bound
	begun  time.Time
	bytes  int64
	status *walkStatus
}

// walkStatus is what others see of a walk.
type walkStatus struct {
	running              atomic.Bool
	pages, total, blocks atomic.Int64
}

// Progress of a rebuild or a scrub.
type Progress struct {
	Running bool  `json:"running"`
	Pages   int64 `json:"pages"`  // of the map, done
	Total   int64 `json:"total"`  // pages to do
	Blocks  int64 `json:"blocks"` // written anew by a rebuild, read by a scrub
}

func (s *walkStatus) progress() Progress {
	return Progress{s.running.Load(), s.pages.Load(), s.total.Load(), s.blocks.Load()}
}

// errBusyWalk: one at a time.
var errBusyWalk = fmt.Errorf("%w: one is running already", ErrInUse)

// run calls fn with the own entries of each page of the layers, which
// [Array.layersUnder] has put in order. A snapshot that is made and deleted meanwhile
// gives what it stands on to a layer that is younger than the walk: those layers follow
// until there are no more.
func (w *walk) run(layers func() []uint64, fn func(layer, page uint64, entries []blockmap.Entry) error) error {
	if w.status.running.Swap(true) {
		return errBusyWalk
	}
	defer w.status.running.Store(false)
	w.begun = time.Now()
	w.status.pages.Store(0)
	w.status.blocks.Store(0)
	w.status.total.Store(0)
	walked := map[uint64]bool{}
	for {
		fresh := slices.DeleteFunc(layers(), func(l uint64) bool { return walked[l] })
		if len(fresh) == 0 {
			return nil
		}
		if err := w.layers(fresh, fn); err != nil {
			return err
		}
		for _, l := range fresh {
			walked[l] = true
		}
	}
}

// layers goes through the pages of some layers.
func (w *walk) layers(layers []uint64, fn func(layer, page uint64, entries []blockmap.Entry) error) error {
	expected := make([]int, len(layers))
	total := 0
	for i, l := range layers {
		pages, err := w.a.blocks.PagesIn(l, 0, 1<<62, true)
		if err != nil {
			return err
		}
		expected[i] = len(pages)
		total += len(pages)
	}
	w.status.total.Add(int64(total))
	var entries [blockmap.PageBlocks]blockmap.Entry
	for i, l := range layers {
		pages, err := w.a.blocks.PagesIn(l, 0, 1<<62, true) // some may have come from layers before it
		if err != nil {
			return err
		}
		w.status.total.Add(int64(len(pages) - expected[i]))
		for _, pg := range pages {
			if err := w.page(l, pg, entries[:], fn); err != nil {
				return err
			}
			w.status.pages.Add(1)
		}
	}
	return nil
}

func (w *walk) page(layer, pg uint64, entries []blockmap.Entry, fn func(layer, page uint64, entries []blockmap.Entry) error) error {
	if err := errors.Join(w.ctx.Err(), w.a.work.ctx.Err()); err != nil {
		return err
	}
	if err := w.a.blocks.Lookup(layer, pg*blockmap.PageBlocks, entries); err != nil {
		return err
	}
	own := entries[:0:0]
	for i := range entries {
		if entries[i].Own && entries[i].Kind == blockmap.KindData {
			own = append(own, entries[i])
		}
	}
	if len(own) == 0 {
		return nil
	}
	return fn(layer, pg, own)
}

// pace waits as long as so many bytes more take at the walk's rate.
func (w *walk) pace(bytes int) error {
	if w.bytes += int64(bytes); w.rate == 0 {
		return nil
	}
	due := time.Duration(float64(w.bytes) / float64(w.rate) * float64(time.Second))
	t := time.NewTimer(due - time.Since(w.begun))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	case <-w.a.work.ctx.Done():
		return w.a.work.ctx.Err()
	}
}

// layersUnder returns the layers that such volumes, and their snapshots, stand
// on. Parents come first: what the janitor moves meanwhile goes from a layer to
// its child, and would be missed the other way round.
func (a *Array) layersUnder(such func(v *volume) bool) []uint64 {
	a.commit.mu.Lock()
	defer a.commit.mu.Unlock()
	a.catalog.mu.Lock()
	defer a.catalog.mu.Unlock()
	seen := map[uint64]bool{}
	add := func(head uint64) {
		for _, l := range a.blocks.Layers.Chain(head) {
			seen[l] = true
		}
	}
	for _, v := range a.catalog.volumes {
		if such(v) {
			add(v.Head)
			for _, s := range v.Snapshots {
				add(s.Layer)
			}
		}
	}
	return slices.Sorted(maps.Keys(seen)) // a layer is younger than its parent
}

func (a *Array) layersOfTwo() []uint64 {
	return a.layersUnder(func(v *volume) bool { return v.Copies == 2 })
}

// away says whether a copy at p does not count: its device is absent, or out
// of service.
func (a *Array) away(p format.Place) bool {
	d := a.devOf(p)
	return d == nil || !d.writable.Load()
}
