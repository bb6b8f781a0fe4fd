package guestmem

import (
	"math/rand/v2"
	"testing"
)

// TestPageSetModel compares a set with a plain slice of booleans.
func TestPageSetModel(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 0))
		pages := rng.Uint64N(500) + 1
		set, model := NewPageSet(pages), make([]bool, pages)
		for range 20 {
			first := rng.Uint64N(pages)
			n := rng.Uint64N(pages-first) + 1
			if rng.IntN(3) == 0 {
				set.Remove(first)
				model[first] = false
				continue
			}
			set.Add(first, n)
			for i := first; i < first+n; i++ {
				model[i] = true
			}
		}
		checkSet(t, seed, set, model)
	}
}

func checkSet(t *testing.T, seed uint64, set *PageSet, model []bool) {
	t.Helper()
	var count uint64
	for i, want := range model {
		if set.Has(uint64(i)) != want {
			t.Fatalf("seed %d: Has(%d) is %v", seed, i, !want)
		}
		if want {
			count++
		}
	}
	if set.Count() != count {
		t.Fatalf("seed %d: Count is %d, not %d", seed, set.Count(), count)
	}
	fromRuns := make([]bool, len(model))
	end := uint64(0)
	for first, n := range set.Runs() {
		if n == 0 || (end > 0 && first <= end) {
			t.Fatalf("seed %d: run of %d at %d after one that ends at %d", seed, n, first, end)
		}
		end = first + n
		for i := first; i < end; i++ {
			fromRuns[i] = true
		}
	}
	for i := range model {
		if fromRuns[i] != model[i] {
			t.Fatalf("seed %d: page %d is wrong in the runs", seed, i)
		}
	}
}

func TestPageSetEdges(t *testing.T) {
	var none *PageSet
	if none.Has(0) || none.Count() != 0 {
		t.Error("a nil set has pages")
	}
	for range none.Runs() {
		t.Error("a nil set has runs")
	}
	set := NewPageSet(64)
	set.Add(0, 64)
	if set.Has(64) || set.Count() != 64 {
		t.Error("a full set is wrong")
	}
	runs := 0
	for range set.Runs() {
		runs++
		break
	}
	if runs != 1 {
		t.Errorf("%d runs", runs)
	}
	other := NewPageSet(64)
	if _, both := set.common(other); both {
		t.Error("a set has something in common with an empty one")
	}
	other.Add(63, 1)
	if page, both := set.common(other); !both || page != 63 {
		t.Errorf("common: %d, %v", page, both)
	}
}
