package blockmap

import (
	"errors"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// viewChanges are what a checkpoint writes of views.
type viewChanges struct {
	kept    []*kept
	dropped []uint64 // layers
	gone    []Key
}

// takeViews takes what the checkpoint with that number is to write. The commit
// lock is held: what the views show is in the checkpoint.
func (m *Map) takeViews(number uint64) (c viewChanges) {
	v := &m.views
	if v.places == nil {
		return c
	}
	v.next.Store(number + 1)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.paused.Load() {
		v.waiting = nil
	}
	there := map[uint64]bool{} // layers
	for key, k := range v.waiting {
		ok, looked := there[key.Layer]
		if !looked {
			l, found := m.Layers.Get(key.Layer)
			ok = found && !l.Merged
			there[key.Layer] = ok
		}
		if ok {
			c.kept = append(c.kept, k)
		}
	}
	v.changeStored(len(c.kept) > 0, func(stored map[uint64]bool) {
		for _, k := range c.kept {
			stored[k.key.Layer] = true
		}
	})
	v.waiting = map[Key]*kept{}
	v.bytes = 0
	c.dropped, v.dropped = v.dropped, nil
	c.gone, v.gone = v.gone, nil
	return c
}

func (c *viewChanges) writeTo(batch *pebble.Batch) error {
	var errs []error
	var key []byte
	remove := func(k Key) {
		key = viewKey(key[:0], k)
		errs = append(errs, batch.Delete(key, nil))
	}
	for _, k := range c.gone {
		remove(k)
	}
	for _, k := range c.kept {
		for _, also := range k.also {
			remove(also)
		}
	}
	for _, k := range c.kept { // last: some may be new for one that is removed
		key = viewKey(key[:0], k.key)
		errs = append(errs, batch.Set(key, k.value, nil))
	}
	for _, layer := range c.dropped {
		errs = append(errs, batch.DeleteRange(viewLayer(layer), viewLayer(layer+1), nil))
	}
	return errors.Join(errs...)
}

// endViews: the changes are in the store, or, if not durable, those that matter
// are to be made again.
func (m *Map) endViews(c *viewChanges, durable bool) {
	v := &m.views
	if v.places == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !durable {
		v.dropped = append(v.dropped, c.dropped...)
		v.gone = append(v.gone, c.gone...)
		return
	}
	v.kept.Add(int64(len(c.kept)))
	v.changeStored(len(c.dropped) > 0, func(stored map[uint64]bool) {
		for _, layer := range c.dropped {
			if !slices.Contains(v.dropped, layer) {
				delete(stored, layer)
			}
		}
	})
}

// changeStored changes what layers may have views in the store, if there is
// anything to change. Who reads it has the one from before or the one behind.
func (v *views) changeStored(any bool, change func(map[uint64]bool)) {
	if !any {
		return
	}
	stored := maps.Clone(*v.stored.Load())
	change(stored)
	v.stored.Store(&stored)
}
