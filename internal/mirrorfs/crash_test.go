package mirrorfs

import (
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// crasher takes both disks' state after a loss of power at an operation. What goes on meanwhile waits, so that both
// lose power at one instant.
type crasher struct {
	d       *disks
	rng     *rand.Rand
	at      int64
	count   atomic.Int64
	gate    sync.RWMutex
	crashed *disks
	flushed func() []uint64 // what was acknowledged as flushed
	kept    []uint64
}

func (c *crasher) inject(int, errorfs.Op) error {
	if c.count.Add(1) == c.at {
		c.gate.Lock()
		c.crash()
		c.gate.Unlock()
		return nil
	}
	c.gate.RLock()
	defer c.gate.RUnlock()
	return nil
}

// crash loses a part of what was not synced, another one on each side.
func (c *crasher) crash() {
	c.kept = c.flushed()
	c.crashed = &disks{}
	for i, mem := range c.d.mem {
		c.crashed.mem[i] = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.rng.IntN(101), RNG: c.rng})
	}
}

// model is what the store must hold: every version that was flushed, or a later one that was written.
type model struct {
	mu               sync.Mutex
	written, flushed []uint64
}

func (m *model) snapshot() []uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.flushed)
}

// check compares what a store holds with what it must, and returns it.
func (m *model) check(t *testing.T, s *store, atLeast []uint64) []uint64 {
	t.Helper()
	got, err := s.versions()
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range got {
		if v < atLeast[k] || v > m.written[k] {
			t.Fatalf("key %d has version %d; %d was flushed, %d written", k, v, atLeast[k], m.written[k])
		}
	}
	return got
}

// restart takes what a store holds after a crash as all there is: it was read from files, which are synced.
func (m *model) restart(got []uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.written, m.flushed = slices.Clone(got), slices.Clone(got)
}

// work writes and flushes until the crash has happened.
func (m *model) work(t *testing.T, s *store, c *crasher, rng *rand.Rand, next *uint64) {
	for c.count.Load() < c.at {
		for range rng.IntN(100) {
			k := rng.IntN(keys)
			*next++
			m.mu.Lock()
			m.written[k] = *next
			m.mu.Unlock()
			s.put(t, k, *next)
		}
		if rng.IntN(3) > 0 {
			upTo := slices.Clone(m.written)
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
			m.mu.Lock()
			m.flushed = upTo
			m.mu.Unlock()
		}
	}
}

// TestCrash loses power on both sides at any operation, also while they are made equal, again and again. Each time the
// store has all that was flushed, and so has each side alone.
func TestCrash(t *testing.T) {
	runs := 5
	if os.Getenv("LSAD_TEST") == "full" {
		runs = 40
	}
	for run := range runs {
		seed := uint64(time.Now().UnixNano()) + uint64(run)
		if !crashes(t, seed) {
			t.Fatalf("seed %d", seed)
		}
	}
}

func crashes(t *testing.T, seed uint64) bool {
	rng := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	d := newDisks(t)
	for i, mem := range d.mem { // the directories are older than the array
		if err := mem.MkdirAll(d.side(i).Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := mem.OpenDir("/")
		if err != nil {
			t.Fatal(err)
		}
		root.Sync()
		root.Close()
	}
	m := &model{written: make([]uint64, keys), flushed: make([]uint64, keys)}
	s := mustOpen(t, d.options(true))
	s.close(t)
	var next uint64
	for range 6 {
		c := &crasher{d: d, rng: rand.New(rand.NewPCG(seed, rng.Uint64())), at: 1 + rng.Int64N(600), flushed: m.snapshot}
		d.setInject(c.inject)
		s := mustOpen(t, d.options(false))
		m.restart(m.check(t, s, m.flushed))
		m.work(t, s, c, rng, &next)
		d.setInject(nil)
		s.close(t)
		if c.crashed == nil {
			t.Fatal("no crash")
		}
		d = c.crashed
		m.aloneHolds(t, d, c.kept)
		if rng.IntN(2) == 0 { // otherwise the next crash comes upon this one
			s = mustOpen(t, d.options(false))
			got := m.check(t, s, c.kept)
			s.wantInService(t, "01")
			m.restart(got)
			s.close(t)
		} else {
			m.flushed = c.kept
		}
	}
	return !t.Failed()
}

// aloneHolds opens each side as a single one, unless a rebuild of it was cut short.
func (m *model) aloneHolds(t *testing.T, d *disks, atLeast []uint64) {
	t.Helper()
	opened := 0
	for i := range 2 {
		copied := vfs.NewMem()
		if _, err := vfs.Clone(d.mem[i], copied, "/", "/"); err != nil {
			t.Fatal(err)
		}
		one := Side{copied, d.side(i).Dir}
		var f found
		if f.look(&side{Side: one}); f.state != nil && f.state.rebuilding {
			continue
		}
		opened++
		s := mustOpen(t, Options{Sides: []Side{one}})
		m.check(t, s, atLeast)
		s.close(t)
	}
	if opened == 0 {
		t.Fatal("no side is whole")
	}
}
