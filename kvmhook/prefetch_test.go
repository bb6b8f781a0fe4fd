package kvmhook

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestEstimate(t *testing.T) {
	if e := estimate(0, 0, 100); e != nil {
		t.Errorf("an estimate from nothing: %+v", e)
	}
	for _, test := range []struct {
		used, of       int64
		low, high      float64 // from statisticians' tables
		usedB, wastedB int64
	}{
		{0, 10, 0, 0.2775, 0, 1000},
		{10, 10, 0.7225, 1, 1000, 0},
		{5, 10, 0.2366, 0.7634, 500, 500},
		{50, 100, 0.4038, 0.5962, 500, 500},
		{900, 1000, 0.8799, 0.9171, 900, 100},
	} {
		e := estimate(test.used, test.of, 1000)
		if math.Abs(e.Low-test.low) > 1e-3 || math.Abs(e.High-test.high) > 1e-3 || e.UsedBytes != test.usedB || e.WastedBytes != test.wastedB {
			t.Errorf("%d of %d: %+v", test.used, test.of, e)
		}
	}
}

// Of a hundred estimates, about five miss, whatever the guest uses, and however it lies together.
func TestIntervalHolds(t *testing.T) {
	const pages, tries, run = 8000, 600, 64
	for _, tenths := range []int{1, 5, 9} {
		missed := 0
		for seed := range uint64(tries) {
			s := newSampler(16, seed, 0)
			rng := rand.New(rand.NewPCG(seed, 99))
			used, sampledUsed, sampled := 0, int64(0), int64(0)
			for first := 0; first < pages; first += run {
				uses := rng.IntN(10) < tenths
				for range run {
					pick := s.pick()
					if pick {
						sampled++
					}
					if uses {
						used++
						if pick {
							sampledUsed++
						}
					}
				}
			}
			share := float64(used) / pages
			if e := estimate(sampledUsed, sampled, 0); share < e.Low || share > e.High {
				missed++
			}
		}
		if missed > tries*8/100 {
			t.Errorf("%d of 10 used: %d of %d intervals miss", tenths, missed, tries)
		}
	}
}

// About one page of so many is chosen, wherever it is, and never more than there is room for.
func TestSampler(t *testing.T) {
	const n = 1 << 20
	for _, every := range []int{1, 2, 16, 256, 4096} {
		s := newSampler(every, 3, 4)
		halves := [2]int{}
		for i := range n {
			if s.pick() {
				halves[i/(n/2)]++
			}
		}
		for _, got := range halves {
			want := float64(n/2) / float64(every)
			if math.Abs(float64(got)-want) > 5*math.Sqrt(want)+1 {
				t.Errorf("one of %d: %d of %d pages were chosen", every, got, n/2)
			}
		}
	}
	room, err := newHeldRoom()
	if err != nil {
		t.Fatal(err)
	}
	defer room.close()
	page := content(9)
	for i := range maxHeld + 3 {
		kept := room.keep(page, false)
		if (kept == nil) != (i >= maxHeld) || room.full() != (i >= maxHeld-1) {
			t.Fatalf("page %d: %d bytes, full %v", i, len(kept), room.full())
		}
	}
}
