package blockmap

import (
	"fmt"
	"slices"
	"sync"

	"lsad/lsa/format"
)

// Layer is one node of the tree of layers. Parent 0 is none.
type Layer struct {
	ID     uint64 `json:"id"`
	Parent uint64 `json:"parent,omitempty"`
	// MergeInto is the layer that took, or is taking, this one's blocks: the
	// records in segments go on naming this one.
	MergeInto uint64 `json:"merge_into,omitempty"`
	// Merged: nothing is left of the layer but that forwarding.
	Merged bool `json:"merged,omitempty"`
}

type layerNode struct {
	Layer
	children []uint64
}

// Layers is the tree of layers. It may be used by many goroutines.
type Layers struct {
	mu    sync.RWMutex
	nodes map[uint64]*layerNode
}

// CheckLayers says what keeps the layers from being a tree: an identity that
// is missing or not alone, a parent that is not there, a chain that never ends.
// Errors wrap format.ErrInvalid. NewLayers relies on there being none.
func CheckLayers(layers []Layer) error {
	bad := func(l Layer, what string, args ...any) error {
		return fmt.Errorf("%w: layer %d: %s", format.ErrInvalid, l.ID, fmt.Sprintf(what, args...))
	}
	byID := make(map[uint64]Layer, len(layers))
	for _, l := range layers {
		if _, ok := byID[l.ID]; ok || l.ID == 0 {
			return bad(l, "there is more than one, or it is layer 0")
		}
		byID[l.ID] = l
	}
	for _, l := range layers {
		p, ok := byID[l.Parent]
		if l.Parent != 0 && (!ok || p.Merged || l.Merged) {
			return bad(l, "it cannot stand on layer %d", l.Parent)
		}
	}
	if l, ok := endless(layers, func(l Layer) Layer { return byID[l.Parent] }); ok {
		return bad(l, "it stands on itself")
	}
	if l, ok := endless(layers, func(l Layer) Layer { return byID[l.MergeInto] }); ok {
		return bad(l, "it was merged into itself")
	}
	return nil
}

// endless finds a layer from which next leads round in a circle; the zero
// Layer ends a chain.
func endless(layers []Layer, next func(Layer) Layer) (Layer, bool) {
	ends := make(map[uint64]bool, len(layers))
	for _, l := range layers {
		path := map[uint64]bool{}
		for at := l; at.ID != 0 && !ends[at.ID]; at = next(at) {
			if path[at.ID] {
				return at, true
			}
			path[at.ID] = true
		}
		for id := range path {
			ends[id] = true
		}
	}
	return Layer{}, false
}

// NewLayers returns the tree of the given layers.
func NewLayers(layers []Layer) *Layers {
	t := &Layers{nodes: make(map[uint64]*layerNode, len(layers))}
	for _, l := range layers {
		t.nodes[l.ID] = &layerNode{Layer: l}
	}
	for _, l := range layers {
		if p := t.nodes[l.Parent]; p != nil && !l.Merged {
			p.children = append(p.children, l.ID)
		}
	}
	return t
}

// Add puts a layer under its parent.
func (t *Layers) Add(l Layer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.nodes[l.ID] = &layerNode{Layer: l}
	if p := t.nodes[l.Parent]; p != nil {
		p.children = append(p.children, l.ID)
	}
}

// Get returns a layer; ok is false if it is not in the tree.
func (t *Layers) Get(id uint64) (l Layer, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.nodes[id]; n != nil {
		return n.Layer, true
	}
	return l, false
}

// Parent returns the parent of a layer, 0 if there is none.
func (t *Layers) Parent(id uint64) uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.nodes[id]; n != nil {
		return n.Parent
	}
	return 0
}

// Children returns the layers that stand directly on id, in no order.
func (t *Layers) Children(id uint64) []uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.nodes[id]; n != nil {
		return slices.Clone(n.children)
	}
	return nil
}

// leaf says whether nothing stands on a layer.
func (t *Layers) leaf(id uint64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := t.nodes[id]
	return n != nil && len(n.children) == 0
}

// Descendants returns every layer above id, in no order.
func (t *Layers) Descendants(id uint64) []uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := t.nodes[id]
	if n == nil || len(n.children) == 0 {
		return nil
	}
	all := slices.Clone(n.children)
	for i := 0; i < len(all); i++ {
		all = append(all, t.nodes[all[i]].children...)
	}
	return all
}

// Chain returns id and its ancestors, nearest first.
func (t *Layers) Chain(id uint64) []uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var chain []uint64
	for n := t.nodes[id]; n != nil; n = t.nodes[n.Parent] {
		chain = append(chain, n.ID)
	}
	return chain
}

// Update changes the flags of a layer (not its place in the tree).
func (t *Layers) Update(id uint64, change func(*Layer)) Layer {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[id]
	parent := n.Parent
	change(&n.Layer)
	n.Parent = parent
	return n.Layer
}

// Splice takes a layer out of the tree: its children become its parent's.
// keep leaves the node itself, without relations, for its MergeInto.
// It returns the layers whose parent changed.
func (t *Layers) Splice(id uint64, keep bool) []Layer {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[id]
	if p := t.nodes[n.Parent]; p != nil {
		p.children = slices.DeleteFunc(p.children, func(c uint64) bool { return c == id })
		p.children = append(p.children, n.children...)
	}
	var moved []Layer
	for _, c := range n.children {
		t.nodes[c].Parent = n.Parent
		moved = append(moved, t.nodes[c].Layer)
	}
	n.children, n.Parent = nil, 0
	if keep {
		n.Merged = true
	} else {
		delete(t.nodes, id)
	}
	return moved
}

// All returns every layer, in no order.
func (t *Layers) All() []Layer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]Layer, 0, len(t.nodes))
	for _, n := range t.nodes {
		all = append(all, n.Layer)
	}
	return all
}
