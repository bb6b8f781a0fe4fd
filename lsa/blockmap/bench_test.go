package blockmap

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lsad/lsa/format"
)

// nobody does no accounting.
type nobody struct{}

func (nobody) Used(uint64, *Entry)  {}
func (nobody) Freed(uint64, *Entry) {}

// lefts are Places of as many segments as the tests use.
type lefts struct {
	numbers [4][]atomic.Uint64 // by device
}

func newLefts() *lefts {
	l := &lefts{}
	for i := range l.numbers {
		l.numbers[i] = make([]atomic.Uint64, 4096)
	}
	return l
}

func (l *lefts) Left(p format.Place, number uint64) { l.numbers[p.Device()][p.Segment()].Store(number) }

func (l *lefts) LastLeft(p format.Place) (uint64, bool) {
	return l.numbers[p.Device()][p.Segment()].Load(), true
}

const (
	benchPages = 64
	plain      = 1000
)

// chainOf makes a map of a volume with so many snapshots, every block of which
// is mapped, by layers all along the chain. It returns its head. Beside it is
// a volume, layer plain, that has no snapshots.
func chainOf(b testing.TB, snapshots int) (*Map, uint64) { return chainOfEvery(b, snapshots, 1) }

// chainOfEvery is chainOf, but only every so manieth layer has anything.
func chainOfEvery(b testing.TB, snapshots int, every uint64) (*Map, uint64) {
	layers := []Layer{{ID: plain}, {ID: 1}}
	for i := range snapshots {
		layers = append(layers, Layer{ID: uint64(i + 2), Parent: uint64(i + 1)})
	}
	m := New(newStore(b), NewLayers(layers), nobody{}, 256<<20)
	rng := rand.New(rand.NewPCG(1, 1))
	crc := func(i int) uint32 { return uint32(i) }
	for _, l := range layers {
		if l.ID%every != 1%every && l.Parent != 0 {
			continue
		}
		for pg := range uint64(benchPages) {
			if err := m.Pin(Key{l.ID, pg}); err != nil {
				b.Fatal(err)
			}
			if l.Parent == 0 {
				m.Write(l.ID, pg*PageBlocks, PageBlocks, 1, format.MakePlace(0, uint32(pg), 1), 0, crc)
			} else {
				block, place := pg*PageBlocks+rng.Uint64N(PageBlocks), format.MakePlace(1, uint32(l.ID), uint32(pg*9+1))
				for _, layer := range []uint64{l.ID, plain} { // what both show is the same
					m.Write(layer, block, 1, l.ID, place, 0, crc)
				}
			}
		}
	}
	return m, layers[len(layers)-1].ID
}

// BenchmarkLookup is the look-up of a cached random block: the same however
// many snapshots there are.
func BenchmarkLookup(b *testing.B) {
	for _, snapshots := range []int{0, 100} {
		for _, blocks := range []int{1, 256} {
			b.Run(fmt.Sprintf("snapshots=%d/blocks=%d", snapshots, blocks), func(b *testing.B) {
				m, head := chainOf(b, snapshots)
				rng := rand.New(rand.NewPCG(2, 2))
				entries := make([]Entry, blocks)
				b.ReportAllocs()
				for b.Loop() {
					if !m.TryLookup(head, rng.Uint64N(benchPages*PageBlocks-256), entries) {
						b.Fatal("not in the cache")
					}
				}
			})
		}
	}
}

// BenchmarkSnapshotsRatio is how many times longer a look-up takes with a
// hundred snapshots than with none, measured in turns, so that whatever else
// the machine does slows both.
func BenchmarkSnapshotsRatio(b *testing.B) {
	m, head := chainOf(b, 100)
	rng := rand.New(rand.NewPCG(2, 2))
	var blocks [1000]uint64
	var entry [1]Entry
	var took [2]time.Duration
	for b.Loop() {
		for i := range blocks {
			blocks[i] = rng.Uint64N(benchPages * PageBlocks)
		}
		for i, layer := range []uint64{plain, head} {
			at := time.Now()
			for _, block := range blocks {
				if !m.TryLookup(layer, block, entry[:]) {
					b.Fatal("not in the cache")
				}
			}
			took[i] += time.Since(at)
		}
	}
	b.ReportMetric(float64(took[1])/float64(took[0]), "ratio")
	b.ReportMetric(float64(took[0].Nanoseconds())/float64(b.N*len(blocks)), "ns/look-up")
}

// BenchmarkWrite maps one random block of a cached page anew.
func BenchmarkWrite(b *testing.B) {
	for _, snapshots := range []int{0, 100} {
		b.Run(fmt.Sprintf("snapshots=%d", snapshots), func(b *testing.B) {
			m, head := chainOf(b, snapshots)
			rng := rand.New(rand.NewPCG(3, 3))
			crc := func(i int) uint32 { return uint32(i) }
			b.ReportAllocs()
			lsn := uint64(1000)
			for b.Loop() {
				lsn++
				block := rng.Uint64N(benchPages * PageBlocks)
				if err := m.Pin(Key{head, block / PageBlocks}); err != nil {
					b.Fatal(err)
				}
				m.Write(head, block, 1, lsn, format.MakePlace(2, uint32(lsn), 1), 0, crc)
				m.Unpin(Key{head, block / PageBlocks})
			}
		})
	}
}

// BenchmarkMiss is the look-up of a block whose page has to be read from the
// store: of a volume with snapshots, and in turns with it of one without any.
// "all" has a row for each layer of the chain, "few" for the oldest only. "first"
// is before views were kept. The
// figures are processor time for each miss, which depends less than the rest on
// what else the machine does, and the ratio of both.
func BenchmarkMiss(b *testing.B) {
	for _, c := range []struct {
		name      string
		snapshots int
		every     uint64 // so manieth layer has each page
	}{{"3 all", 3, 1}, {"10 all", 10, 1}, {"100 all", 100, 1}, {"10 few", 10, 1000}, {"100 few", 100, 1000}} {
		m, head := chainOfEvery(b, c.snapshots, c.every)
		save(b, m)
		compact := func() {
			if err := m.db.Compact(b.Context(), []byte{keyPrefix}, []byte{viewPrefix + 1}, false); err != nil {
				b.Fatal(err)
			}
		}
		compact()
		b.Run(c.name+" first", func(b *testing.B) { benchMiss(b, m, head) })
		keeper := cold(b, m)
		for pg := range uint64(benchPages) {
			if err := keeper.Lookup(head, pg*PageBlocks, make([]Entry, 1)); err != nil {
				b.Fatal(err)
			}
		}
		save(b, keeper)
		compact()
		b.Run(c.name, func(b *testing.B) { benchMiss(b, m, head) })
	}
}

func benchMiss(b *testing.B, m *Map, head uint64) {
	var took, misses [2]float64
	for b.Loop() {
		for i, layer := range []uint64{plain, head} {
			for range 8 { // together as long as the clock is fine
				t, n := missAll(b, m, layer)
				took[i] += t
				misses[i] += n
			}
		}
	}
	none, some := took[0]/misses[0], took[1]/misses[1]
	b.ReportMetric(none, "us/miss-without")
	b.ReportMetric(some, "us/miss-with")
	b.ReportMetric(some/none, "ratio")
}

// cold is another map of the same store, with nothing cached, that keeps views.
func cold(t testing.TB, m *Map) *Map {
	c := New(m.db, m.Layers, nobody{}, 1)
	if err := c.KeepViews(newLefts(), 1, 0); err != nil {
		t.Fatal(err)
	}
	return c
}

// BenchmarkMissDeltas is the look-up of a block whose page has so many deltas that were not put together with it yet, in
// processor time for each miss. The store compacts at four layers of them or so.
func BenchmarkMissDeltas(b *testing.B) {
	for _, deltas := range []int{0, 1, 4} {
		b.Run(fmt.Sprint(deltas), func(b *testing.B) {
			m, _ := chainOf(b, 0)
			save(b, m)
			if err := m.db.Compact(b.Context(), []byte{keyPrefix}, []byte{keyPrefix + 1}, false); err != nil {
				b.Fatal(err)
			}
			for i := range deltas {
				for pg := range uint64(benchPages) {
					if err := m.Pin(Key{plain, pg}); err != nil {
						b.Fatal(err)
					}
					for j := range 3 {
						m.Write(plain, pg*PageBlocks+uint64(i*7+j*100), 1, uint64(1000+i), format.MakePlace(3, uint32(i), uint32(pg*24+uint64(j)*8+1)), 0, func(int) uint32 { return 9 })
					}
					m.Unpin(Key{plain, pg})
				}
				save(b, m)
			}
			var took, misses float64
			for b.Loop() {
				for range 8 { // together as long as the clock is fine
					t, n := missAll(b, m, plain)
					took, misses = took+t, misses+n
				}
			}
			b.ReportMetric(took/misses, "us/miss")
		})
	}
}

// missAll looks up a block in each page with nothing in the cache, and returns
// how many microseconds of processor time for how many misses that took.
func missAll(b *testing.B, m *Map, layer uint64) (us, misses float64) {
	cold := cold(b, m)
	var entry [1]Entry
	before := cpuTime(b)
	for pg := range uint64(benchPages) {
		if err := cold.Lookup(layer, pg*PageBlocks, entry[:]); err != nil {
			b.Fatal(err)
		}
	}
	return float64((cpuTime(b) - before).Nanoseconds()) / 1000, float64(cold.Stats().Misses)
}

func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestHotPathsAllocateNothing: looking up and mapping anew, in steady state.
func TestHotPathsAllocateNothing(t *testing.T) {
	m, head := chainOf(t, 3)
	entries := make([]Entry, 256)
	crc := func(i int) uint32 { return uint32(i) }
	block := uint64(0)
	for name, fn := range map[string]func(){
		"TryLookup": func() { m.TryLookup(head, block, entries) },
		"Lookup": func() {
			if err := m.Lookup(head, block, entries); err != nil {
				t.Fatal(err)
			}
		},
		"Write": func() {
			if err := m.Pin(Key{head, block / PageBlocks}); err != nil {
				t.Fatal(err)
			}
			m.Write(head, block, 8, 77, format.MakePlace(1, 1, 1), 0, crc)
			m.Unpin(Key{head, block / PageBlocks})
		},
	} {
		if n := testing.AllocsPerRun(100, func() { block = (block + 4096 - 8) % (60 * PageBlocks); fn() }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
