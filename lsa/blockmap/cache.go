package blockmap

import (
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

const shardCount = 64

type shard struct {
	mu    sync.RWMutex
	pages map[Key]*page
	ring  []*page // every page, for the clock
	hand  int
	dirty []*page // changed in the current generation

	scratch []byte // of touch

	_ [64]byte
}

// Map is the map of one array.
type Map struct {
	Layers *Layers

	db     *pebble.DB
	acct   Accounting
	budget int64

	bytes    atomic.Int64 // of all cached pages
	dirty    atomic.Int64 // of pages changed since the last checkpoint began
	flushing atomic.Int64 // of pages that a running checkpoint holds
	hits     atomic.Int64
	misses   atomic.Int64

	gen      uint64 // of changes made now; changed by Begin only
	flushGen uint64 // of the running checkpoint, 0 if none

	changed  changed      // the pages with a gen that is not 0
	looked   atomic.Int64 // words, pages and rows that searches looked at
	rowsRead atomic.Int64 // for pages that were missed

	whole      atomic.Bool // pages are always stored whole
	deltasFrom int         // so are those with fewer entries

	views  views
	unread unread

	beforeCache func() // resolve is about to ask the cache; nil but in tests

	shards [shardCount]shard
}

// New returns the map that db, which has Merger, holds. budget bounds the cache, in bytes.
func New(db *pebble.DB, layers *Layers, acct Accounting, budget int64) *Map {
	m := &Map{Layers: layers, db: db, acct: acct, budget: budget, gen: 1, deltasFrom: deltasFrom}
	for i := range m.shards {
		m.shards[i].pages = make(map[Key]*page)
	}
	return m
}

// StoreWhole has checkpoints store whole pages only, as builds do that do not know deltas, or not any more.
func (m *Map) StoreWhole(whole bool) { m.whole.Store(whole) }

// DeltasFrom sets how many entries a page has to have to be stored as a delta, 0 for the default. It is called before
// anything else.
func (m *Map) DeltasFrom(entries int) {
	if entries > 0 {
		m.deltasFrom = entries
	}
}

func (m *Map) shard(k Key) *shard {
	h := (k.Layer*0x9e3779b97f4a7c15 ^ k.Page) * 0xbf58476d1ce4e5b9
	return &m.shards[h>>58]
}

// Pin loads a page, if need be, and holds it in memory until Unpin.
func (m *Map) Pin(k Key) error {
	for {
		s := m.shard(k)
		s.mu.Lock()
		p := s.pages[k]
		if p == nil {
			p = m.insert(s, k)
			s.mu.Unlock()
			m.misses.Add(1)
			return m.load(s, p)
		}
		p.pins++
		p.ref.Store(true)
		loading := p.loading
		s.mu.Unlock()
		if loading == nil {
			m.hits.Add(1)
			return nil
		}
		<-loading
		if m.loaded(s, p) {
			return nil
		}
		// Its loader failed and took the page, with our pin, out of the
		// cache; try, and fail, for ourselves.
	}
}

func (m *Map) loaded(s *shard, p *page) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.pages[p.key] == p
}

// Unpin releases a page pinned before.
func (m *Map) Unpin(k Key) {
	s := m.shard(k)
	s.mu.Lock()
	if p := s.pages[k]; p != nil {
		p.pins--
	}
	s.mu.Unlock()
}

// insert adds a page that is loading, pinned once. The shard is locked.
func (m *Map) insert(s *shard, k Key) *page {
	p := &page{key: k, pins: 1, loading: make(chan struct{}), slot: len(s.ring)}
	p.ref.Store(true)
	s.pages[k] = p
	s.ring = append(s.ring, p)
	m.bytes.Add(pageBytes)
	m.evict(s)
	return p
}

// evict lets clean pages of the shard go while the cache is over its budget.
func (m *Map) evict(s *shard) {
	for tries := 2 * len(s.ring); tries > 0 && len(s.ring) > 0 && m.bytes.Load() > m.budget; tries-- {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		p := s.ring[s.hand]
		switch {
		case p.pins > 0 || p.gen != 0 || p.loading != nil || p.saved:
			s.hand++
		case p.ref.Swap(false):
			s.hand++
		default:
			m.remove(s, p)
		}
	}
}

func (m *Map) remove(s *shard, p *page) {
	last := s.ring[len(s.ring)-1]
	s.ring[p.slot], last.slot = last, p.slot
	s.ring = s.ring[:len(s.ring)-1]
	delete(s.pages, p.key)
	m.bytes.Add(-p.bytes())
}

// load fills a page that insert made. On failure it takes the page out again.
func (m *Map) load(s *shard, p *page) error {
	for {
		entries, keep, err := m.resolve(p.key)
		s.mu.Lock()
		if err == nil && p.reload {
			p.reload = false
			s.mu.Unlock()
			continue
		}
		if err != nil {
			m.remove(s, p)
		} else {
			p.entries = entries
			m.bytes.Add(int64(cap(entries)) * entryBytes)
		}
		m.views.keep(keep)
		close(p.loading)
		p.loading = nil
		s.mu.Unlock()
		m.unread.note(p.key, err)
		return err
	}
}
