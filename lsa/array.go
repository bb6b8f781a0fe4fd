package lsa

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"lsad/internal/loglimit"
	"lsad/internal/storefs"
	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// Array is an open array.
type Array struct {
	opts        Options
	log         *slog.Logger
	logs        struct{ damaged, notRepaired, repaired, headers loglimit.Limiter } // a dying disk has millions of blocks
	db          *pebble.DB
	slots       atomic.Pointer[[]*device] // see devs
	blocks      *blockmap.Map
	catalog     *catalog
	super       superState
	readers     readers
	readOnly    bool                      // nothing is written: degraded, or only inspected
	ballast     *ballast                  // taken unless read-only
	store       *storefs.FS               // what the metadata store is on, unless read-only
	storeSaid   atomic.Pointer[time.Time] // when it was logged last that it failed
	unreadSaid  *blockmap.Unread          // what was logged of it last that it cannot be read; by the loop of tryUnread alone
	storeBehind atomic.Bool               // it fails, and there was no room for that reason
	storeTables atomic.Int32              // layers of tables that were not compacted yet, when it was looked last
	degraded    bool                      // a device is missing, and the log may lack what it had
	missing     int                       // devices that are, not counting those given up
	goesOn      bool                      // without the missing one, and never again with it
	twoCopies   atomic.Bool               // there are, or were, volumes with two copies
	limit       atomic.Int64              // blocks that may be in use
	separates   atomic.Bool               // blocks are, by Options.Placement
	recovery    RecoveryReport

	append struct {
		mu         sync.Mutex
		nextLSN    uint64
		tail       uint64     // of the queue: batches reserved so far
		current    *device    // takes user data now
		pair       [2]*device // take user data of two copies now
		stretch    int64      // bytes until another device's turn
		clock      float64    // the turn of the device that was chosen last
		roomAt     time.Time  // when a segment was prepared last
		cannotMove bool       // since then a collection failed for want of room
		gaveUp     bool       // since then a writer waited for the file system below, in vain
		unsynced   bool       // a device was not taken since too much of it is not synced
		// somebody waits until the records of a failed device are saved
		awaitsRescue bool
		space        *sync.Cond
		closed       bool
		full         atomic.Bool // somebody waits for the queue or for room
	}
	commit struct {
		mu   sync.Mutex
		head atomic.Uint64 // of the queue: batches committed so far
	}
	queue [queueLength]atomic.Pointer[batch]

	lostUpTo   atomic.Uint64 // every record that was lost with a device has a lower LSN, or this; see lost.go
	aloneUpTo  atomic.Uint64 // every record that was to have two copies and has one, or this; see alone.go
	committed  atomic.Uint64 // highest LSN acknowledged; all lower ones are too
	checkpoint struct {
		mu     sync.Mutex
		lsn    atomic.Uint64 // of the last durable checkpoint
		number uint64        // of that one, guarded by mu
		ratio  float64       // of the bytes that its pages took in the store to those they took in memory, guarded by mu; 0: not known
	}
	flush flusher

	used       atomic.Int64 // blocks with data, each copy of one, or allocated zeros
	pending    atomic.Int64 // blocks that reserved batches may add to used
	logBytes   atomic.Int64 // appended since the last checkpoint began
	broken     atomic.Pointer[error]
	pressure   atomic.Int64 // see space.go
	counters   counters
	owed       atomic.Int64 // ns that writers are still to wait while room is short
	waits      waits        // of writers, see stalls.go
	lastLayer  *layerCount
	layerSizes map[uint64]*layerCount // guarded by commit.mu

	membership         sync.Mutex // one device is added or removed at a time; taken before admin
	removal            removal
	admin              sync.Mutex // one administrative change at a time; taken before everything else
	janitor            janitor
	repairs            repairs
	rebuild, scrubbing walkStatus
	rebuildFailed      atomic.Pointer[error] // why the last rebuild left blocks without a second copy
	work               background
}

// layerCount counts the blocks that a layer itself has, each copy of one.
type layerCount struct {
	layer  uint64
	blocks atomic.Int64
	dirty  bool
}

// background owns the goroutines of an array.
type background struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	checkpoint chan struct{}
	prepare    chan struct{}
	tidy       chan struct{}
	layers     chan struct{}
	sync       chan struct{}
	rebuild    chan struct{}
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Used implements blockmap.Accounting. commit.mu is held.
func (a *Array) Used(layer uint64, e *blockmap.Entry) { a.account(layer, e, 1) }

// Freed implements blockmap.Accounting. commit.mu is held.
func (a *Array) Freed(layer uint64, e *blockmap.Entry) { a.account(layer, e, -1) }

func (a *Array) account(layer uint64, e *blockmap.Entry, n int) {
	blocks := n * e.Blocks()
	if blocks == 0 {
		return
	}
	if e.Kind == blockmap.KindData {
		for _, p := range e.Place {
			if p == 0 {
				continue
			}
			if d := a.devs()[p.Device()]; d != nil {
				s := &d.segs[p.Segment()]
				s.live.Store(s.live.Load() + uint32(n))
				d.live.Add(int64(n))
				s.dirty.Store(true)
			}
		}
	}
	a.used.Add(int64(blocks))
	c := a.layerCount(layer)
	c.blocks.Add(int64(blocks))
	c.dirty = true
}

// Left implements blockmap.Places. commit.mu is held.
func (a *Array) Left(p format.Place, number uint64) {
	if planted(ruleMovesEndViews) {
		return
	}
	if d := a.devOf(p); d != nil && int(p.Segment()) < len(d.segs) {
		s := &d.segs[p.Segment()]
		s.left.Store(max(s.left.Load(), number))
		s.dirty.Store(true)
	}
}

// LastLeft implements blockmap.Places.
func (a *Array) LastLeft(p format.Place) (number uint64, ok bool) {
	d := a.devOf(p)
	if d == nil || int(p.Segment()) >= len(d.segs) {
		return 0, false
	}
	return d.segs[p.Segment()].left.Load(), true
}

func (a *Array) layerCount(layer uint64) *layerCount {
	if c := a.lastLayer; c != nil && c.layer == layer {
		return c
	}
	c := a.layerSizes[layer]
	if c == nil {
		c = &layerCount{layer: layer}
		a.layerSizes[layer] = c
	}
	a.lastLayer = c
	return c
}

// fail makes the array refuse all further changes: the log has a hole that
// could not be filled.
func (a *Array) fail(err error) {
	if a.broken.CompareAndSwap(nil, &err) {
		a.log.Error("the array takes no more changes until it is restarted", "error", err)
	}
}

func (a *Array) failed() error {
	if err := a.broken.Load(); err != nil {
		return *err
	}
	return nil
}

func (a *Array) epoch() uint64 { return a.super.epoch }

func (a *Array) devOf(p format.Place) *device {
	if int(p.Device()) >= len(a.devs()) {
		return nil
	}
	return a.devs()[p.Device()]
}
