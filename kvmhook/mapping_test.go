package kvmhook

import (
	"math/rand/v2"
	"testing"
)

// testMapping has pages of which those for which zero says so are holes.
func testMapping(pages int, zero func(i int) bool) *mapping {
	zeros := newBitmap(int64(pages) * smallPage)
	for i := range pages {
		if zero(i) {
			zeros.setRange(int64(i)*smallPage, smallPage, int64(pages)*smallPage)
		}
	}
	return newMapping(Region{Base: 1 << 30, Size: uint64(pages) * smallPage, PageSize: smallPage}, zeros)
}

// Whatever is asked in whatever order, every page with content is handed out exactly once, and no hole ever.
func TestEveryPageOnce(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		const pages = 2000
		holes := make([]bool, pages)
		for i := range holes {
			holes[i] = rng.IntN(3) == 0
		}
		m := testMapping(pages, func(i int) bool { return holes[i] })
		given := make([]int, pages)
		take := func(first, last int) {
			for i := first; i < last; i++ {
				given[i]++
			}
		}
		for range 400 {
			page := rng.IntN(pages)
			switch v, first, last := m.decide(page, extent{1 << rng.IntN(5), 128}); v {
			case fetchRun:
				if page < first || page >= last {
					t.Fatalf("seed %d: page %d is not in [%d, %d)", seed, page, first, last)
				}
				take(first, last)
			case giveZeros:
				for i := first; i < last; i++ {
					if !holes[i] {
						t.Fatalf("seed %d: zeros for page %d, which has content", seed, i)
					}
				}
			}
		}
		for at, ok := 0, true; ok; {
			var first int
			first, at, ok = m.claim(at, pages, 1+rng.IntN(40))
			take(first, at)
		}
		for i, n := range given {
			if want := 1; n != want && !holes[i] || n != 0 && holes[i] {
				t.Fatalf("seed %d: page %d, hole %v, was handed out %d times", seed, i, holes[i], n)
			}
		}
	}
}

// A reader that goes on where it was gets more at a time, one that jumps does not.
func TestPredict(t *testing.T) {
	m := testMapping(4096, func(int) bool { return false })
	page, sizes := 0, []int{}
	for len(sizes) < 8 {
		_, _, last := m.decide(page, extent{4, 128})
		sizes = append(sizes, last-page)
		page = last
	}
	for i, want := range []int{4, 4, 8, 16, 32, 64, 128, 128} {
		if sizes[i] != want {
			t.Fatalf("sizes %v", sizes)
		}
	}
	for _, page := range []int{1001, 3001, 2001, 901} {
		if _, first, last := m.decide(page, extent{4, 128}); last-first != 4 || first%4 != 0 {
			t.Errorf("a lone fault at %d takes [%d, %d)", page, first, last)
		}
	}
}

// A hole that spans much more than is looked at in one go keeps nobody waiting, and hides nothing behind it.
func TestClaimInSteps(t *testing.T) {
	const pages = 3*claimScan + 10
	m := testMapping(pages, func(i int) bool { return i < pages-3 })
	steps := 0
	for at, ok := 0, true; ok; steps++ {
		var first int
		if first, at, ok = m.claim(at, pages, 64); at > first && (first != pages-3 || at != pages) {
			t.Fatalf("claimed [%d, %d)", first, at)
		}
	}
	if steps != 5 || m.states[pages-1] != fetching {
		t.Errorf("%d steps, the last page is in state %d", steps, m.states[pages-1])
	}
}

func TestBitmap(t *testing.T) {
	const size = 200*blockSize + 100
	b := newBitmap(size)
	b.setRange(3*blockSize+1, 3*blockSize, size) // two whole blocks
	b.setRange(64*blockSize, 64*blockSize, size)
	b.setRange(200*blockSize, 100, size) // the end
	for i := range int64(201) {
		want := i == 4 || i == 5 || i >= 64 && i < 128 || i == 200
		if b.all(i*blockSize, 1) != want {
			t.Errorf("block %d: %v", i, !want)
		}
	}
	if b.all(63*blockSize, 2*blockSize) || !b.all(70*blockSize, 58*blockSize) {
		t.Error("ranges")
	}
}
