package gc

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// However often the period changes, the devices take turns in order, and their distances in shares of the period
// stay.
func TestScheduleKeepsPhases(t *testing.T) {
	const devices = 5
	rnd := rand.New(rand.NewPCG(1, 1))
	s := schedule{base: epoch, period: time.Second}
	due := make([]float64, devices)
	for i := range due {
		due[i] = after(0, float64(i)/devices)
	}
	now := epoch
	last := -1
	for range 2000 {
		next := 0
		for i := range due {
			if due[i] < due[next] {
				next = i
			}
		}
		at := s.when(due[next])
		if half := now.Add(at.Sub(now) / 2); rnd.IntN(3) == 0 {
			s = s.with(time.Duration(float64(s.period)*(0.5+rnd.Float64()))+time.Millisecond, half)
			at = s.when(due[next])
		}
		if at.Before(now) {
			t.Fatalf("turn of device %d at %v, now %v", next, at, now)
		}
		if last >= 0 && next != (last+1)%devices {
			t.Fatalf("device %d's turn after %d's", next, last)
		}
		if c := s.at(at) - due[next]; c < -1e-6 || c > 1e-4 {
			t.Fatalf("count is %v off at its turn", c)
		}
		now, last = at, next
		was := due[next]
		due[next] = after(math.Max(s.at(now), was), float64(next)/devices)
		if d := due[next] - was; math.Abs(d-1) > 1e-6 {
			t.Fatalf("device %d: %v periods to its next turn", next, d)
		}
	}
}

func TestRetune(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name             string
		old, wish, since time.Duration
		want             time.Duration
	}{
		{"same", s, s, s, s},
		{"a little shorter: not worth it", s, 950 * time.Millisecond, s, s},
		{"shorter: at once", s, 700 * time.Millisecond, 0, 700 * time.Millisecond},
		{"much shorter: one step", s, time.Millisecond, 0, s * 2 / 3},
		{"a little longer", s, 1100 * time.Millisecond, s, s},
		{"longer, too soon", s, 2 * s, s / 2, s},
		{"longer", s, 2 * s, s, s + s/4},
		{"longer, to the wish", s, 1200 * time.Millisecond, s, 1200 * time.Millisecond},
		{"never below the least", minPeriod, 0, s, minPeriod},
		{"never above the most", maxPeriod, 2 * maxPeriod, maxPeriod, maxPeriod},
	} {
		if got := retune(c.old, c.wish, c.since); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestFillRate(t *testing.T) {
	var f fill
	available, now := 1000, epoch
	for range 400 { // 20 segments a second, and every tenth step collection gives back what ten steps took
		f.observe(now, available, time.Second)
		now = now.Add(50 * time.Millisecond)
		available--
		if available%10 == 0 {
			available += 10
			f.gain(10)
		}
	}
	for name, r := range map[string]float64{"slow": f.slow.rate(), "fast": f.fast.rate()} {
		if math.Abs(r-20) > 3 {
			t.Errorf("%s average %v, want 20", name, r)
		}
	}
	for range 100 { // the load stops
		now = now.Add(50 * time.Millisecond)
		f.observe(now, available, time.Second)
	}
	if r := f.fast.rate(); r > 0.1 {
		t.Errorf("fast average %v five periods after the load stopped", r)
	}
}
