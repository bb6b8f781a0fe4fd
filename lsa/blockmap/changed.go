package blockmap

import "sync"

// changed says which cached pages the store does not have as they are. Of all
// that is cached, a search for what is mapped needs no others: pages that are
// clean have their rows in the store, in order. A word has a bit for each of 64
// pages, so a page costs 40 bytes at the most, and volumes written in sequence
// next to nothing.
type changed struct {
	mu     sync.RWMutex
	layers map[uint64]words
}

type words map[uint64]uint64 // by page / wordPages

const wordPages = 64

func (c *changed) add(k Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.layers[k.Layer]
	if w == nil {
		if c.layers == nil {
			c.layers = make(map[uint64]words)
		}
		w = make(words)
		c.layers[k.Layer] = w
	}
	w[k.Page/wordPages] |= 1 << (k.Page % wordPages)
}

func (c *changed) drop(k Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, at := c.layers[k.Layer], k.Page/wordPages
	if w[at] &^= 1 << (k.Page % wordPages); w[at] == 0 {
		delete(w, at)
	}
	if len(w) == 0 { // maps do not shrink: the next one begins small
		delete(c.layers, k.Layer)
	}
}

// in appends the layer's changed pages in [from, to), in no order. It looks at
// the words of the range or at those that the layer has, whichever are fewer,
// and returns how many it looked at.
func (c *changed) in(pages []uint64, layer, from, to uint64) (_ []uint64, looked int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	w := c.layers[layer]
	if len(w) == 0 || from >= to {
		return pages, 0
	}
	take := func(at, word uint64) {
		looked++
		for i := uint64(0); word != 0; i, word = i+1, word>>1 {
			if pg := at*wordPages + i; word&1 != 0 && pg >= from && pg < to {
				pages = append(pages, pg)
			}
		}
	}
	if first, last := from/wordPages, (to-1)/wordPages; last-first < uint64(len(w)) {
		for at := first; at <= last; at++ {
			take(at, w[at])
		}
		return pages, looked
	}
	for at, word := range w {
		take(at, word)
	}
	return pages, looked
}
