package lsa

import (
	"errors"
	"fmt"
	"sync"

	"lsad/lsa/blockmap"
)

// janitor gives back what layers hold that no volume or snapshot stands on any
// more. Nothing of it is logged: each step leaves the map right, checkpoints
// hold how far it came, and the tree says what is left to do.
type janitor struct {
	mu    sync.Mutex      // one pass at a time
	swept map[uint64]bool // junctions that were swept since the tree changed
	shape uint64          // of the tree: how many layers there are, and how many with a name
	// moving is held alone while entries go from a layer to another, and shared
	// while the pages of several layers are listed: one after the other, so that
	// what moves in between could be missed in both. It is taken before commit.mu.
	moving sync.RWMutex
}

// pagesIn returns, in order, the pages in [from, to) in which a reader of the
// layer may see something.
func (a *Array) pagesIn(layer, from, to uint64) ([]uint64, error) {
	a.janitor.moving.RLock()
	defer a.janitor.moving.RUnlock()
	return a.blocks.PagesIn(layer, from, to, false)
}

// tidyLayers works until nothing is left to do.
func (a *Array) tidyLayers() error {
	if a.readOnly {
		return nil
	}
	a.janitor.mu.Lock()
	defer a.janitor.mu.Unlock()
	for {
		l, children, ok := a.nextLayer()
		if !ok || a.work.ctx.Err() != nil {
			return nil
		}
		// A read that began while the layer was a volume's head still looks there.
		a.readers.quiesce()
		var err error
		switch len(children) {
		case 0:
			err = a.dropLayer(l.ID)
		case 1:
			err = a.mergeLayer(l.ID, children[0])
		default:
			err = a.sweepLayer(l.ID, children)
		}
		if err != nil {
			return fmt.Errorf("layer %d: %w", l.ID, err)
		}
	}
}

// nextLayer finds a layer without a name that there is something to do for.
func (a *Array) nextLayer() (l blockmap.Layer, children []uint64, ok bool) {
	// The commit lock keeps a change of the catalogue and of the tree together.
	a.commit.mu.Lock()
	defer a.commit.mu.Unlock()
	named := a.catalog.named()
	all := a.blocks.Layers.All()
	if shape := uint64(len(all))<<32 | uint64(len(named)); shape != a.janitor.shape {
		a.janitor.shape, a.janitor.swept = shape, map[uint64]bool{}
	}
	for _, l := range all {
		if named[l.ID] || l.Merged {
			continue
		}
		children := a.blocks.Layers.Children(l.ID)
		if len(children) < 2 || !a.janitor.swept[l.ID] {
			return l, children, true
		}
	}
	return l, nil, false
}

// dropLayer frees a layer that nobody reads.
func (a *Array) dropLayer(layer uint64) error {
	err := a.eachOwnPage(layer, nil, func(pg uint64) { a.blocks.DropPage(blockmap.Key{Layer: layer, Page: pg}) })
	if err != nil {
		return err
	}
	a.commit.mu.Lock()
	defer a.commit.mu.Unlock()
	a.blocks.Layers.Splice(layer, false)
	a.forgetLayer(layer)
	return nil
}

// mergeLayer gives the blocks of a layer to its only child.
func (a *Array) mergeLayer(layer, child uint64) error {
	a.commit.mu.Lock()
	a.blocks.Layers.Update(layer, func(l *blockmap.Layer) { l.MergeInto = child })
	a.catalog.dirtyLayers[layer] = true
	a.commit.mu.Unlock()
	err := a.eachOwnPage(layer, []uint64{child}, func(pg uint64) { a.blocks.MergePage(layer, child, pg) })
	if err != nil {
		return err
	}
	a.commit.mu.Lock()
	defer a.commit.mu.Unlock()
	for _, moved := range a.blocks.Layers.Splice(layer, true) {
		a.catalog.dirtyLayers[moved.ID] = true
	}
	a.forgetLayer(layer)
	return nil
}

// sweepLayer frees what every child of a layer without a name hides.
func (a *Array) sweepLayer(layer uint64, children []uint64) error {
	err := a.eachOwnPage(layer, children, func(pg uint64) { a.blocks.DropHidden(layer, children, pg) })
	a.janitor.swept[layer] = err == nil
	return err
}

func (a *Array) forgetLayer(layer uint64) {
	delete(a.layerSizes, layer)
	a.blocks.DropViews(layer)
	a.lastLayer = nil
	a.catalog.dirtyLayers[layer] = true
}

// eachOwnPage calls fn, under the commit lock, for every page in which the
// layer may have entries of its own. Its page and those of others are pinned.
func (a *Array) eachOwnPage(layer uint64, others []uint64, fn func(pg uint64)) error {
	pages, err := a.blocks.PagesIn(layer, 0, 1<<62, true)
	if err != nil {
		return err
	}
	for _, pg := range pages {
		if err := errors.Join(a.work.ctx.Err(), a.storeStuck()); err != nil {
			return err
		}
		pins, err := a.pinPages(append([]uint64{layer}, others...), pg)
		if err != nil {
			return err
		}
		a.janitor.moving.Lock()
		a.commit.mu.Lock()
		fn(pg)
		a.commit.mu.Unlock()
		a.janitor.moving.Unlock()
		a.unpinAll(pins)
		a.slow(0)
	}
	return nil
}

func (a *Array) pinPages(layers []uint64, pg uint64) ([]pinned, error) {
	var pins []pinned
	for _, l := range layers {
		if err := a.blocks.Pin(blockmap.Key{Layer: l, Page: pg}); err != nil {
			a.unpinAll(pins)
			return nil, err
		}
		pins = append(pins, pinned{l, pg})
	}
	return pins, nil
}

// pinMerged pins the page of a block in its layer and in those that layer was
// merged into; what cannot be loaded is left out.
func (a *Array) pinMerged(layer, block uint64) []pinned {
	var pins []pinned
	l, ok := a.blocks.Layers.Get(layer)
	for ok {
		pg := block / blockmap.PageBlocks
		if a.blocks.Pin(blockmap.Key{Layer: l.ID, Page: pg}) == nil {
			pins = append(pins, pinned{l.ID, pg})
		}
		l, ok = a.blocks.Layers.Get(l.MergeInto)
	}
	return pins
}
