package gc

import (
	"errors"
	"testing"
)

func over(segs ...SegmentInfo) func(func(SegmentInfo) bool) {
	return func(fn func(SegmentInfo) bool) {
		for _, s := range segs {
			if !fn(s) {
				return
			}
		}
	}
}

func TestPolicies(t *testing.T) {
	seg := func(id SegmentID, live int, sealed uint64) SegmentInfo {
		return SegmentInfo{ID: id, Live: live, Capacity: 100, Sealed: sealed}
	}
	for _, c := range []struct {
		policy string
		segs   []SegmentInfo
		want   SegmentID
	}{
		{"greedy", []SegmentInfo{seg(1, 30, 10), seg(2, 29, 990), seg(3, 90, 1)}, 2},
		{"greedy", []SegmentInfo{seg(1, 30, 10), seg(2, 30, 9)}, 2},
		{"greedy", []SegmentInfo{seg(1, 30, 10), {ID: 2, Live: 50, Capacity: 200, Sealed: 20}}, 2},
		{"cost-benefit", []SegmentInfo{seg(1, 30, 990), seg(2, 60, 100)}, 2},                       // age wins
		{"cost-benefit", []SegmentInfo{seg(1, 30, 500), seg(2, 60, 500)}, 1},                       // garbage wins
		{"cost-benefit", []SegmentInfo{seg(1, 30, 5000), seg(2, 60, 5000)}, 1},                     // dated in the future
		{"d-choices", []SegmentInfo{seg(1, 30, 10), seg(2, 29, 990), seg(3, 90, 1)}, 2},            // all are drawn
		{"d-choices", append(make([]SegmentInfo, 0), seg(7, 1, 1), seg(8, 2, 1), seg(9, 3, 1)), 7}, // all are drawn
	} {
		p, err := NewPolicy(c.policy, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := p.Pick(1000, over(c.segs...)); !ok || got.ID != c.want {
			t.Errorf("%s picks %d of %+v, want %d", c.policy, got.ID, c.segs, c.want)
		}
	}
	for _, name := range PolicyNames() {
		p, err := NewPolicy(name, 1)
		if err != nil || p.Name() != name {
			t.Fatalf("policy %s: %v, %v", name, p, err)
		}
		if s, ok := p.Pick(1000, over()); ok {
			t.Errorf("%s picks %+v of nothing", name, s)
		}
	}
	if _, err := NewPolicy("random", 0); !errors.Is(err, ErrUnknown) {
		t.Errorf("policy random: %v", err)
	}
}

// Of many segments d-choices takes an empty one most of the time, and not always the emptiest.
func TestDChoicesDraws(t *testing.T) {
	var segs []SegmentInfo
	for i := range 1000 {
		segs = append(segs, SegmentInfo{ID: SegmentID(i), Live: 1 + i, Capacity: 1001})
	}
	p, _ := NewPolicy("d-choices", 3)
	sum := 0
	seen := map[SegmentID]bool{}
	for range 400 {
		s, _ := p.Pick(0, over(segs...))
		sum += s.Live
		seen[s.ID] = true
	}
	if mean := sum / 400; mean < 60 || mean > 130 { // 1001/(choices+1) is 91
		t.Errorf("mean of the least of ten draws is %d, want about 91", mean)
	}
	if len(seen) < 100 {
		t.Errorf("only %d different segments in 400 draws", len(seen))
	}
}
