package gc

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
)

func mustPlacement(t testing.TB, name string) Placement {
	t.Helper()
	p, err := NewPlacement(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Whatever is read from a damaged or older map, a placement answers with one of its classes.
func TestPlacementsStayInRange(t *testing.T) {
	for _, name := range PlacementNames() {
		p := mustPlacement(t, name)
		if p.Name() != name || p.Classes() < 1 || p.Classes() > MaxClasses {
			t.Fatalf("placement %s calls itself %s and has %d classes", name, p.Name(), p.Classes())
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		for i := range 200_000 {
			b := Block{Now: rnd.Uint64() >> rnd.IntN(64), Written: rnd.Uint64() >> rnd.IntN(64), Known: rnd.IntN(4) > 0,
				Class: rnd.IntN(300) - 20, Collected: rnd.IntN(2) == 0}
			if c := p.Place(b); c < 0 || c >= p.Classes() {
				t.Fatalf("%s: %+v goes to class %d of %d", name, b, c, p.Classes())
			}
			if i%100 == 0 {
				p.Victim(rnd.Uint64()>>rnd.IntN(64), SegmentInfo{Opened: rnd.Uint64() >> rnd.IntN(64), Class: b.Class}, 1+rnd.IntN(1000))
			}
		}
	}
	if _, err := NewPlacement("best"); !errors.Is(err, ErrUnknown) {
		t.Errorf("placement best: %v", err)
	}
}

func TestSepGC(t *testing.T) {
	p := mustPlacement(t, "sepgc")
	if p.Place(Block{}) == p.Place(Block{Collected: true, Known: true}) {
		t.Error("collected blocks go where users' writes go")
	}
}

func TestDAC(t *testing.T) {
	for _, c := range []struct {
		b    Block
		want int
	}{
		{Block{}, 0},
		{Block{Known: true, Class: 0}, 1},
		{Block{Known: true, Class: 7}, 7},
		{Block{Known: true, Class: 3, Collected: true}, 2},
		{Block{Known: true, Class: 0, Collected: true}, 0},
	} {
		if got := mustPlacement(t, "dac").Place(c.b); got != c.want {
			t.Errorf("%+v goes to %d, want %d", c.b, got, c.want)
		}
	}
}

func TestSepBIT(t *testing.T) {
	p := mustPlacement(t, "sepbit")
	if got := p.Place(Block{Now: 1 << 40, Written: 1, Known: true}); got != 0 {
		t.Errorf("before a life is known an overwrite goes to %d", got)
	}
	for i := range uint64(sepBITVictims) { // lives of 900 to 1125: 1012 on average
		p.Victim(10_000, SegmentInfo{Class: 0, Opened: 10_000 - 900 - 15*i}, 1)
		p.Victim(10_000, SegmentInfo{Class: 3, Opened: 0}, 1) // of no concern
	}
	at := func(age uint64, class int, collected bool) Block {
		return Block{Now: 1 << 20, Written: 1<<20 - age, Known: true, Class: class, Collected: collected}
	}
	for _, c := range []struct {
		b    Block
		want int
	}{
		{Block{}, 1},
		{at(1011, 5, false), 0}, {at(1012, 0, false), 1},
		{at(9, 0, true), 2}, {at(99999, 0, true), 2},
		{at(4047, 1, true), 3}, {at(4048, 1, true), 4}, {at(16191, 2, true), 4}, {at(16192, 2, true), 5},
	} {
		if got := p.Place(c.b); got != c.want {
			t.Errorf("%+v goes to %d, want %d", c.b, got, c.want)
		}
	}
}

// learned is the interval placement after it measured a sweep of a million LSNs.
func learned(t testing.TB) *interval {
	p := mustPlacement(t, "interval").(*interval)
	for i := range uint64(200) {
		p.Victim(i*1000, SegmentInfo{}, 1000)
	}
	if s := p.sweep.Load(); s < 990_000 || s > 1_010_000 {
		t.Fatalf("sweep %d, want a million", s)
	}
	return p
}

// A block overwritten at a steady interval ends up around the class of that interval, wherever it began; the
// shorter the interval the hotter the class.
func TestIntervalConverges(t *testing.T) {
	p := learned(t)
	last := -1.0
	for _, x := range []uint64{20_000_000, 6_000_000, 2_000_000, 600_000, 200_000, 60_000, 20_000, 6_000} {
		for _, start := range []int{0, 7} {
			class, sum, now := start, 0, uint64(1)<<40
			for i := range 2000 {
				now += x
				class = p.Place(Block{Now: now, Written: now - x, Known: true, Class: class})
				if i >= 1000 {
					sum += class
				}
			}
			mean := float64(sum) / 1000
			if start == 0 {
				if mean < last {
					t.Errorf("interval %d: class %.2f, colder than that of a longer interval", x, mean)
				}
				last = mean
			} else if d := mean - last; d < -0.2 || d > 0.2 {
				t.Errorf("interval %d: class %.2f when starting hot, %.2f when starting cold", x, mean, last)
			}
		}
	}
	if last < 6.5 {
		t.Errorf("the shortest interval is in class %.2f", last)
	}
}

func TestIntervalCollected(t *testing.T) {
	p := learned(t)
	for class := range intervalClasses {
		for age := uint64(1); age < 1<<34; age *= 3 {
			b := Block{Now: 1 << 40, Written: 1<<40 - age, Known: true, Class: class, Collected: true}
			if got := p.Place(b); got > class {
				t.Fatalf("a collected block of class %d and age %d became hotter: %d", class, age, got)
			}
		}
	}
	old := Block{Now: 1 << 40, Written: 1<<40 - 20_000_000, Known: true, Class: 7, Collected: true}
	if got := p.Place(old); got != 0 {
		t.Errorf("a block that lived for 20 sweeps is in class %d", got)
	}
}

func TestPlacementConcurrent(t *testing.T) {
	for _, name := range PlacementNames() {
		p := mustPlacement(t, name)
		var wg sync.WaitGroup
		for g := range uint64(4) {
			wg.Go(func() {
				for i := range uint64(2000) {
					p.Place(Block{Now: i, Written: i / 2, Known: true, Class: int(g)})
					p.Victim(i*4+g, SegmentInfo{Opened: i}, 100)
				}
			})
		}
		wg.Wait()
	}
}

func BenchmarkPlace(b *testing.B) {
	for _, name := range PlacementNames() {
		b.Run(name, func(b *testing.B) {
			var p Placement = mustPlacement(b, name)
			if name == "interval" {
				p = learned(b)
			}
			b.ReportAllocs()
			for i := range uint64(b.N) {
				p.Place(Block{Now: 1<<40 + i, Written: 1<<40 - i*977, Known: true, Class: int(i & 7)})
			}
		})
	}
}
