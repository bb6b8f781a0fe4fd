// Package blockmap owns the map: for each layer and block number, where the
// block lies. It keeps pages of PageBlocks entries in a bounded memory cache,
// reads them from the metadata store when they are missed, and hands the dirty
// ones to a checkpoint: whole, or as deltas, where little changed. The store puts
// page and deltas together with Merger. The package also owns the tree of layers, since reading a block
// means walking from a layer to its ancestors.
//
// A cached page is resolved: it holds what a reader of the layer sees, each
// entry marked as the layer's own or inherited. So a read costs one look-up,
// however many snapshots the layer stands on. Only own entries are stored: a miss
// reads a row for each layer, down to one that is cached or until all is known.
//
// Who may call what. Any number of goroutines may look up and pin. Everything
// that changes the map (the methods of Map named in change.go, merge.go and
// Begin of a checkpoint) is called by one goroutine at a time: the array's
// commit lock sees to that. A page that is to be changed is pinned first, so
// that no change ever waits for the store.
//
// Lock order: Layers.mu and a shard's mu are not held while the other is taken,
// nor across I/O. changed.mu is a leaf, taken under a shard's; so is views.mu, under which
// Layers.mu may be taken.
package blockmap

import "lsad/lsa/format"

// PageBlocks is how many blocks a page of the map describes: 4 MiB of a volume.
const PageBlocks = 1024

// Kind says what an entry maps its block to.
type Kind uint8

// The kinds. Values are on disk. KindNone is an unmapped block, a hole.
const (
	KindNone Kind = 0
	// KindData: the block's bytes lie at Place[0] (and Place[1], if not zero).
	KindData Kind = 1
	// KindZero: zero but allocated; it counts as used space and stores nothing.
	KindZero Kind = 2
	// KindHole hides an ancestor's block.
	KindHole Kind = 3
)

// Entry maps one block.
type Entry struct {
	LSN   uint64 // of the change that wrote the block
	Place [2]format.Place
	CRC   uint32
	Off   uint16 // of the block in its page
	Kind  Kind
	Own   bool // of the layer itself, not of an ancestor
}

// Blocks is how many blocks of the array's space the entry takes: each copy of
// data is one.
func (e *Entry) Blocks() int {
	switch {
	case e.Kind == KindZero || e.Kind == KindData && e.Place[1] == 0:
		return 1
	case e.Kind == KindData:
		return 2
	}
	return 0
}

// Has says whether the entry's data lies at p, among others.
func (e *Entry) Has(p format.Place) bool {
	return e.Kind == KindData && p != 0 && (e.Place[0] == p || e.Place[1] == p)
}

// Other returns the place of the copy that is not at p, zero if there is none.
func (e *Entry) Other(p format.Place) format.Place {
	if e.Place[0] == p {
		return e.Place[1]
	}
	return e.Place[0]
}

// Key names a page.
type Key struct{ Layer, Page uint64 }

// Accounting hears of every own entry that comes into or goes out of the map.
// It is called with the commit lock and a shard's lock held: count, no more.
type Accounting interface {
	Used(layer uint64, e *Entry)
	Freed(layer uint64, e *Entry)
}
