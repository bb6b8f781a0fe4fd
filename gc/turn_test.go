package gc

import (
	"context"
	"math"
	"testing"
	"time"
)

// The share of the device's time is relaxed where there is room, all of it at the default low threshold, and
// goes from one to the other without a jump, in the count as well as in the time left.
func TestPaceShareIsSmooth(t *testing.T) {
	l := Limits{Low: 100, High: 120, AltLow: 200, AltHigh: 240}
	if s := paceShare(l.AltLow, l, 0, 0); s != relaxedShare {
		t.Errorf("at the alternative low threshold %v", s)
	}
	for _, a := range []int{l.Low, l.Low - 1, 0} {
		if s := paceShare(a, l, 0, 0); s != 1 {
			t.Errorf("at %d, the default low threshold or below, %v", a, s)
		}
	}
	last := 1.0
	for a := l.Low; a <= l.AltHigh; a++ {
		s := paceShare(a, l, 0, 0)
		if s > last || last-s > 0.02 || s < relaxedShare {
			t.Fatalf("at %d: %v after %v", a, s, last)
		}
		last = s
	}
	last = relaxedShare
	for left := 1000; left >= -10; left-- {
		s := paceShare(l.AltHigh, l, 100*time.Millisecond, time.Duration(left)*time.Millisecond)
		if s < last || s-last > 0.02 || s > 1 {
			t.Fatalf("with %d ms left for 100 ms of work: %v after %v", left, s, last)
		}
		last = s
	}
	if last != 1 {
		t.Errorf("too late: %v", last)
	}
}

func TestPauseAddsUp(t *testing.T) {
	f := newFake("d0", 100, 14)
	_, ds := mustNew(t, marks, f)
	var paused time.Duration
	for range 100 {
		p := ds[0].Pause(epoch, 100*time.Microsecond)
		if p != 0 && p < shortestPause {
			t.Fatalf("a pause of %v", p)
		}
		paused += p
	}
	if want := 10 * time.Millisecond; paused < want-shortestPause || paused > want {
		t.Errorf("paused for %v after 10 ms of work at half the time", paused)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ds[0].Pace(ctx, time.Hour); err == nil {
		t.Error("a pause outlasts its context")
	}
}

// work steps a device whose segments take each to collect, until it has nothing to do, and returns the time.
func work(t *testing.T, c *Collector, d *Device, f *fake, now time.Time, each time.Duration) time.Time {
	t.Helper()
	for range 1000 {
		a := c.Step(d, now)
		if !a.Collect {
			return now
		}
		now = now.Add(each)
		d.Pause(now, each)
		d.Done(f.collect(a.Victim.ID))
	}
	t.Fatal("the collection does not end")
	return now
}

// A turn that has too much to do ends before the next device's begins, and the next turn does the rest, unless
// what is unused would not last until then.
func TestTurnEndsInTime(t *testing.T) {
	for _, c := range []struct {
		name   string
		unused int // at the turn
		each   time.Duration
		lo, hi int // unused after the turn
		inTime bool
	}{
		{"enough time", 10, 20 * time.Millisecond, 14, 14, true},
		{"too much to do", 10, 70 * time.Millisecond, 12, 13, true},
		{"too much to do, but too little there", 5, 70 * time.Millisecond, 8, 11, false},
	} {
		f := newFake("d0", 200, 16)
		col, ds := mustNew(t, marks, f, newFake("d1", 200, 50), newFake("d2", 200, 50), newFake("d3", 200, 50))
		d := ds[0]
		now := work(t, col, d, f, epoch, 0)
		turn := 1
		at := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }
		for range 6 { // four segments a second, and enough time: it learns its fill and its work
			for range 4 {
				now = now.Add(200 * time.Millisecond)
				f.use(1)
				now = work(t, col, d, f, now, c.each/2)
			}
			now = work(t, col, d, f, at(turn), c.each/2)
			turn++
		}
		f.use(f.Count().Unused - c.unused)
		d.timePerBlock = float64(c.each) / 20 // a device that became slower, and knows
		now = work(t, col, d, f, at(turn), c.each)
		got := f.Count().Unused
		if got < c.lo || got > c.hi {
			t.Errorf("%s: %d unused after the turn, want %d to %d", c.name, got, c.lo, c.hi)
		}
		if inTime := now.Before(at(turn).Add(250*time.Millisecond + time.Millisecond)); inTime != c.inTime {
			t.Errorf("%s: the turn took %v of 250 ms", c.name, now.Sub(at(turn)))
		}
	}
}

// A burst brings the turns nearer before the default low threshold is reached.
func TestBurstShortensThePeriod(t *testing.T) {
	f := newFake("d0", 2000, 1000)
	cfg := marks
	cfg.Period = 0
	c, ds := mustNew(t, cfg, f)
	now := epoch
	for f.Count().Unused > 12 { // a segment every two seconds
		now = work(t, c, ds[0], f, now.Add(2*time.Second), 0)
		f.use(1)
	}
	for range 200 {
		now = now.Add(2 * time.Second)
		f.use(1)
		now = work(t, c, ds[0], f, now, 0)
	}
	slow := c.Period()
	if want := 10 * time.Second; slow < want*2/3 || slow > want*4/3 {
		t.Fatalf("period %v at a segment every two seconds, want about %v", slow, want)
	}
	forced := ds[0].Status(now).Totals.Forced
	for range 400 { // twenty times as fast
		now = now.Add(100 * time.Millisecond)
		f.use(1)
		now = work(t, c, ds[0], f, now, 0)
	}
	fast := c.Period()
	if fast > slow/10 || fast < slow/40 {
		t.Errorf("period %v, then %v at twenty times the rate", slow, fast)
	}
	if n := ds[0].Status(now).Totals.Forced - forced; n > 5 {
		t.Errorf("%d forced collections", n)
	}
}

// The parts of the period follow what the devices need, leave no gap and do not move for a trifle.
func TestWeigh(t *testing.T) {
	fakes := []Target{newFake("a", 100, 50), newFake("b", 100, 50), newFake("c", 100, 50), newFake("d", 100, 50)}
	measured := func(ds []*Device, work ...float64) {
		for i, w := range work {
			ds[i].workPerSegment = w * 1e6
			ds[i].fill = fill{started: true, level: 100, slow: average{sum: 10, secs: 1}}
		}
	}
	c, ds := mustNew(t, Config{}, fakes...)
	measured(ds, 10, 11, 9, 10)
	now := epoch.Add(time.Minute)
	c.weigh(now)
	for i, s := range c.Status(now) {
		if s.Phase != float64(i)/4 {
			t.Errorf("device %d moved to %v for a trifle", i, s.Phase)
		}
	}
	measured(ds, 10, 10, 80, 10)
	for range 40 {
		now = now.Add(time.Minute)
		c.weigh(now)
	}
	end := 0.0
	for i, d := range ds {
		if math.Abs(d.offset-end) > 1e-9 {
			t.Errorf("the part of device %d begins at %v, the one before ends at %v", i, d.offset, end)
		}
		end += d.slot
		if frac := d.due - d.offset; math.Abs(frac-math.Round(frac)) > 1e-9 {
			t.Errorf("device %d has offset %v and its turn at %v", i, d.offset, d.due)
		}
	}
	if math.Abs(end-1) > 1e-9 || ds[2].slot < 0.5 || ds[0].slot < 0.06 {
		t.Errorf("parts %v %v %v %v", ds[0].slot, ds[1].slot, ds[2].slot, ds[3].slot)
	}

	phase := 0.1
	c, ds = mustNew(t, Config{Devices: map[string]DeviceConfig{"a": {Phase: &phase}}}, fakes...)
	measured(ds, 10, 10, 80, 10)
	c.weigh(epoch.Add(time.Minute))
	if ds[0].offset != phase || ds[1].offset != 0.25 {
		t.Errorf("phases set by hand moved: %v, %v", ds[0].offset, ds[1].offset)
	}
}

func FuzzAmount(f *testing.F) {
	for _, s := range []string{"12", "1.5%", "", "0", "1e3%", "-1", "%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var a, b Amount
		if a.UnmarshalText([]byte(s)) != nil {
			return
		}
		if n := a.Of(1_000_000); !a.IsZero() && n < 1 && a.share*1e6 > 1e-6 {
			t.Fatalf("%q is %d of a million segments", s, n)
		}
		if err := b.UnmarshalText([]byte(a.String())); err != nil && a.share > 1e-8 {
			t.Fatalf("%q became %q: %v", s, a, err)
		}
	})
}
