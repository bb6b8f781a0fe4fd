package blockmap

import (
	"fmt"
	"runtime"

	"github.com/cockroachdb/pebble/v2"
)

// Checkpoint holds the pages that were dirty at one instant. Changes made
// later do not show in it: a page that is changed before it was written leaves
// an image of what it was.
type Checkpoint struct {
	m     *Map
	gen   uint64
	pages [shardCount][]*page
	views viewChanges
}

// Begin takes the dirty pages. It is called under the commit lock, and not
// again before the checkpoint it returned is Done or Failed. number is that of
// the checkpoint: one more than that of the one before, the same if that failed.
func (m *Map) Begin(number uint64) *Checkpoint {
	c := &Checkpoint{m: m, gen: m.gen, views: m.takeViews(number)}
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		c.pages[i], s.dirty = s.dirty, nil
		s.mu.Unlock()
	}
	m.flushGen = m.gen
	m.gen++
	m.flushing.Store(m.dirty.Swap(0))
	return c
}

// yieldPages take a tenth of a millisecond or so to encode. Where processors are few, clients wait for this one.
const yieldPages = 16

// WriteTo puts the pages into batch.
func (c *Checkpoint) WriteTo(batch *pebble.Batch) error {
	var key, value []byte
	for i, pages := range c.pages {
		s := &c.m.shards[i]
		for n, p := range pages {
			if n%yieldPages == 0 {
				runtime.Gosched()
			}
			s.mu.Lock()
			value = append(value[:0], p.image...)
			if !p.saved {
				value = c.m.appendValue(value[:0], p)
				p.saved = true
			}
			p.image = nil
			s.mu.Unlock()
			key = appendKey(key[:0], p.key)
			if err := putPage(batch, key, value); err != nil {
				return fmt.Errorf("checkpoint map page %d of layer %d: %w", p.key.Page, p.key.Layer, err)
			}
		}
	}
	if err := c.views.writeTo(batch); err != nil {
		return fmt.Errorf("checkpoint kept views: %w", err)
	}
	return nil
}

func putPage(batch *pebble.Batch, key, value []byte) error {
	none := value[1] == 0 // entries
	switch {
	case value[0] == deltaVersion && none:
		return nil
	case value[0] == deltaVersion:
		return batch.Merge(key, value, nil)
	case none:
		return batch.Delete(key, nil)
	}
	return batch.Set(key, value, nil)
}

// Done: the pages are durable. Those not changed since are clean now.
func (c *Checkpoint) Done() { c.end(true) }

// Failed: the pages are dirty still. Called under the commit lock.
func (c *Checkpoint) Failed() { c.end(false) }

func (c *Checkpoint) end(durable bool) {
	for i, pages := range c.pages {
		s := &c.m.shards[i]
		s.mu.Lock()
		for _, p := range pages {
			p.saved, p.image = false, nil
			if !durable || p.gen == c.gen {
				p.markAll() // nothing is noted of clean pages; and what the store has of the others is not known
			}
			if p.gen != c.gen {
				continue
			}
			if durable {
				p.gen = 0
				c.m.changed.drop(p.key)
				continue
			}
			p.gen = c.m.gen
			s.dirty = append(s.dirty, p)
			c.m.dirty.Add(p.bytes())
		}
		if durable {
			c.m.evict(s)
		}
		s.mu.Unlock()
	}
	c.m.endViews(&c.views, durable)
	c.m.flushing.Store(0)
}
