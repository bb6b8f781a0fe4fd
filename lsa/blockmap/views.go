package blockmap

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"lsad/lsa/format"
)

// A kept view is what a reader of a sealed layer sees of a page, in one row. It
// spares those who stand on the layer a row for each of its ancestors. It is
// no second truth: views may be missing, and one is believed only if nothing in
// it can have become wrong.
//
// What a sealed layer shows never changes, only where it lies does, by Move.
// So each Move tells Places from which segments a block goes away, and the
// number of the checkpoint that will be the first to have it so. A view has the
// number that was the next one before its rows were read. It holds if no block has
// left a segment that it refers to since, that is with its number or a higher
// one: a move with the same number may have come before the rows were read, or after.
//
// Numbers go on behind a restart: the segments' are stored by the same checkpoints as
// the views, and replay tells them of the moves behind the last, with the number of
// the next. No stored view has a higher one. (One may have the same: it was begun behind a
// checkpoint that failed, and stored by the next attempt.)
//
// Views are stored by checkpoints only. So whatever they refer to is durable.

// Places knows which segments blocks have moved away from.
type Places interface {
	// Left notes, under the commit lock, that a block is about to move away
	// from p. number is that of the checkpoint which will be the first to have it so.
	Left(p format.Place, number uint64)
	// LastLeft returns the highest number that was noted for the segment of p,
	// 0 for none. ok is false if there is no such segment.
	LastLeft(p format.Place) (number uint64, ok bool)
}

const (
	// viewsFrom so many layers that were looked at for one page, its view is kept.
	// More would be as many rows for each miss, and fewer as many views as there are
	// snapshots of a page.
	viewsFrom = 2
	viewsMost = 8 // that viewsFrom may be set to
	// viewsShare of the cache, or viewsMin bytes, may wait for the next checkpoint.
	viewsShare = 32
	viewsMin   = 1 << 20
	// viewsCount of them may: the checkpoint looks at each while nothing is committed.
	viewsCount = 4096
)

// views are those kept, and those to be.
type views struct {
	places Places        // nil: none are kept or believed
	from   int           // see viewsFrom
	next   atomic.Uint64 // number of the next checkpoint

	paused atomic.Bool

	kept, used, outdated atomic.Int64 // since the start

	stored atomic.Pointer[map[uint64]bool] // layers that may have some in the store; changed under mu, as a whole

	mu      sync.Mutex
	waiting map[Key]*kept // for the next checkpoint
	bytes   int64         // of those
	limit   int64
	dropped []uint64 // layers, whose views the next checkpoint removes
	gone    []Key    // views that it removes
}

// kept is a view that a miss worked out at some cost.
type kept struct {
	key   Key
	value []byte
	also  []Key // whose views it takes the place of
}

// KeepViews begins to keep views and to believe those in the store, which was
// written by the checkpoint with that number last. from is for how many layers that
// were looked at a view is kept, 0 for the default, 8 at most. It is called before the
// map is used. An error says that some of those in the store are not used.
func (m *Map) KeepViews(places Places, number uint64, from int) error {
	v := &m.views
	if from <= 0 {
		from = viewsFrom
	}
	v.places, v.from, v.limit = places, min(from, viewsMost), max(viewsMin, m.budget/viewsShare)
	v.next.Store(number + 1)
	v.waiting = map[Key]*kept{}
	return m.findViews()
}

// findViews notes which layers have views in the store. Those of layers that are
// not there, which no checkpoint leaves behind, are to be removed.
func (m *Map) findViews() error {
	stored := map[uint64]bool{}
	defer m.views.stored.Store(&stored)
	it, err := m.db.NewIter(&pebble.IterOptions{LowerBound: []byte{viewPrefix}, UpperBound: []byte{viewPrefix + 1}})
	if err != nil {
		return fmt.Errorf("read kept views: %w", StoreError(err))
	}
	for ok := it.First(); ok; {
		k, err := parseViewKey(it.Key())
		if err != nil {
			return errClose(err, it)
		}
		stored[k.Layer] = true
		if l, ok := m.Layers.Get(k.Layer); !ok || l.Merged {
			m.views.dropped = append(m.views.dropped, k.Layer)
		}
		ok = k.Layer+1 != 0 && it.SeekGE(viewLayer(k.Layer+1))
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("read kept views: %w", StoreError(err))
	}
	return nil
}

// has says whether the layer may have views in the store.
func (v *views) has(layer uint64) bool {
	return v.places != nil && (*v.stored.Load())[layer]
}

// view returns the entries of a kept view that still holds.
func (m *Map) view(k Key) ([]Entry, bool) {
	if !m.views.has(k.Layer) {
		return nil, false
	}
	var buf [17]byte
	value, closer, err := m.db.Get(viewKey(buf[:0], k))
	if err != nil {
		return nil, false
	}
	defer closer.Close()
	m.rowsRead.Add(1)
	return m.decodeView(value)
}

// decodeView decodes a view that was read; ok is false if it does not hold, or
// there is none. Damage is as good as no view: the rows of the layers are asked,
// and lsad check tells.
func (m *Map) decodeView(value []byte) (entries []Entry, ok bool) {
	if value == nil {
		return nil, false
	}
	number, entries, err := decodeView(nil, value)
	if err != nil || !m.views.holds(number, entries) {
		m.views.outdated.Add(1)
		return nil, false
	}
	m.views.used.Add(1)
	return entries, true
}

// holds says whether all entries of a view with that number are where they were.
func (v *views) holds(number uint64, entries []Entry) bool {
	const sectors = 1<<24 - 1
	var fine [64]format.Place // in segments that were found to do, each with all bits of its sector
	for i := range entries {
		for _, p := range entries[i].Place {
			if p == 0 {
				continue
			}
			seg := p | sectors
			at := &fine[seg>>24%64]
			if *at == seg {
				continue
			}
			if left, ok := v.places.LastLeft(p); !ok || left >= number {
				return false
			}
			*at = seg
		}
	}
	return true
}

// left tells Places that an entry is about to change.
func (v *views) left(e *Entry) {
	if v.places == nil {
		return
	}
	for _, p := range e.Place {
		if p != 0 {
			v.places.Left(p, v.next.Load())
		}
	}
}

// hasRoom says whether one more may wait.
func (v *views) hasRoom() bool {
	if v.paused.Load() {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.bytes < v.limit && len(v.waiting) < viewsCount
}

// PauseViews keeps no more of them for now, or goes on. Those that are stored are used.
func (m *Map) PauseViews(pause bool) { m.views.paused.Store(pause) }

// keep has the next checkpoint store a view, if there is room.
func (v *views) keep(k *kept) {
	if k == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if old := v.waiting[k.key]; old != nil {
		v.bytes -= old.bytes()
		delete(v.waiting, k.key)
	}
	if v.bytes+k.bytes() > v.limit || len(v.waiting) >= viewsCount {
		return
	}
	v.waiting[k.key] = k
	v.bytes += k.bytes()
}

func (k *kept) bytes() int64 { return int64(cap(k.value) + 16*cap(k.also) + 128) }

// forget removes the view of a page with the next checkpoint, since the layer loses
// what nobody sees. Who stands on the layer may go on to use it until then. The
// pages of all children are pinned: none is being loaded.
func (v *views) forget(k Key) {
	if v.places == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if old := v.waiting[k]; old != nil {
		v.bytes -= old.bytes()
		delete(v.waiting, k)
	}
	if v.has(k.Layer) {
		v.gone = append(v.gone, k)
	}
}

// DropViews removes those of a layer that is taken out of the tree with the
// next checkpoint. It is called under the commit lock.
func (m *Map) DropViews(layer uint64) {
	v := &m.views
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.has(layer) {
		v.dropped = append(v.dropped, layer)
	}
}

// ViewsWaiting says how much of the room for views that wait for a checkpoint is
// taken, from 0 to 1.
func (m *Map) ViewsWaiting() float64 {
	v := &m.views
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.bytes == 0 {
		return 0
	}
	return max(float64(v.bytes)/float64(v.limit), float64(len(v.waiting))/viewsCount)
}
