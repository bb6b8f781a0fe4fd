package gc

import (
	"testing"
	"time"
)

var edges = Limits{Low: 4, High: 6, AltLow: 10, AltHigh: 14}

func TestDecide(t *testing.T) {
	const T = time.Second
	for _, c := range []struct {
		unused     int
		since, thr time.Duration
		want       Reason
		why        string
	}{
		{0, 0, T, Forced, "nothing left"},
		{3, 0, T, Forced, "below default low"},
		{4, 0, T, Forced, "at default low"},
		{4, T, T, Forced, "at default low when the timer matches: the safety net comes first"},
		{4, T, 0, Forced, "at default low without a timer"},
		{5, 0, T, None, "one above default low, timer just armed"},
		{5, T - 1, T, None, "one above default low, timer about to match"},
		{5, T, T, Early, "one above default low, timer matches"},
		{10, T - 1, T, None, "at alternative low, timer about to match"},
		{10, T, T, Early, "at alternative low, timer matches exactly"},
		{10, T + 1, T, Early, "at alternative low, timer seen late"},
		{10, 99 * T, 0, None, "at alternative low without a timer"},
		{11, T, T, None, "one above alternative low, timer matches"},
		{11, 99 * T, T, None, "one above alternative low, long after"},
		{14, T, T, None, "at alternative high"},
		{1 << 30, T, T, None, "all unused"},
		{-1, T, T, Forced, "a count that can not be is still the safety net's"},
	} {
		if got := Decide(c.unused, c.since, c.thr, edges); got != c.want {
			t.Errorf("%s: Decide(%d, %v, %v) = %v, want %v", c.why, c.unused, c.since, c.thr, got, c.want)
		}
	}
}

func TestEnded(t *testing.T) {
	for _, c := range []struct {
		why    Reason
		unused int
		want   bool
	}{
		{Forced, 4, false}, {Forced, 5, false}, {Forced, 6, true}, {Forced, 7, true},
		{Early, 6, false}, {Early, 10, false}, {Early, 13, false}, {Early, 14, true}, {Early, 15, true},
		{Manual, 13, false}, {Manual, 14, true},
		{None, 0, true},
	} {
		if got := Ended(c.why, c.unused, edges); got != c.want {
			t.Errorf("Ended(%v, %d) = %v, want %v", c.why, c.unused, got, c.want)
		}
	}
}

// A collection never ends where it began, and never begins where it ended, whatever the limits.
func TestTriggerHysteresis(t *testing.T) {
	for total := 16; total < 5000; total = total*3/2 + 1 {
		l := DefaultLimits(total)
		for unused := 0; unused <= l.AltHigh+2; unused++ {
			if why := Decide(unused, 1, 1, l); why != None && Ended(why, unused, l) {
				t.Fatalf("%+v: a collection that began %v at %d has ended", l, why, unused)
			}
			for _, why := range []Reason{Early, Forced} {
				if Ended(why, unused, l) && Decide(unused, 0, 1, l) != None {
					t.Fatalf("%+v: a collection that ended %v at %d begins at once", l, why, unused)
				}
			}
		}
	}
}
