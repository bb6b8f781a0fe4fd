package gc

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a device whose segments all hold 100 blocks; a tenth of each is garbage.
type fake struct {
	mu       sync.Mutex
	name     string
	counts   Counts
	sealed   []SegmentInfo
	slow     bool // collected segments stay pending
	fail     map[SegmentID]error
	stuck    map[SegmentID]int // blocks that cannot be moved
	took     []SegmentID
	released int
	each     time.Duration // of a collection
	moved    int           // blocks in the open segment of the mover
	overlap  *overlap
}

func TestWorthReleasing(t *testing.T) {
	for _, test := range []struct {
		unused, pending, low int
		want                 bool
	}{
		{0, 0, 8, false}, {9, 100, 8, false}, // nothing to make unused; no need
		{8, 3, 8, false}, {8, 4, 8, true}, {5, 3, 8, false}, {5, 4, 8, true}, // many
		{4, 1, 8, true}, {0, 1, 8, true}, // few others
		{4, 1, 4, false}, {4, 2, 4, true}, {2, 1, 4, true},
		{1, 1, 1, true}, {2, 1, 1, false}, {0, 1, 0, true},
	} {
		if got := worthReleasing(Counts{Unused: test.unused, Pending: test.pending, Total: 1000}, test.low); got != test.want {
			t.Errorf("%d unused, %d pending, low %d: %v", test.unused, test.pending, test.low, got)
		}
	}
}

// overlap counts how many devices collect at once.
type overlap struct {
	mu       sync.Mutex
	now, top int
}

func (o *overlap) add(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now += n
	o.top = max(o.top, o.now)
}

func newFake(name string, total, unused int) *fake {
	f := &fake{name: name, counts: Counts{Unused: unused, Total: total}, fail: map[SegmentID]error{}}
	for i := range total - unused {
		f.sealed = append(f.sealed, SegmentInfo{ID: SegmentID(i), Live: 20, Capacity: 100, Sealed: uint64(i)})
	}
	return f
}

func (f *fake) Name() string  { return f.name }
func (f *fake) Now() uint64   { return 1 << 20 }
func (f *fake) Release()      { f.mu.Lock(); f.released++; f.mu.Unlock() }
func (f *fake) Count() Counts { f.mu.Lock(); defer f.mu.Unlock(); return f.counts }

func (f *fake) Candidates(fn func(SegmentInfo) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sealed {
		if !fn(s) {
			return
		}
	}
}

func (f *fake) Collect(ctx context.Context, id SegmentID, pace Pacer) (int, error) {
	if f.overlap != nil {
		f.overlap.add(1)
		defer f.overlap.add(-1)
	}
	if f.each > 0 {
		time.Sleep(f.each)
		if err := pace.Pace(ctx, f.each); err != nil {
			return 0, err
		}
	}
	return f.collect(id)
}

func (f *fake) collect(id SegmentID) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail[id]; err != nil {
		return 0, err
	}
	for i, s := range f.sealed {
		if s.ID != id {
			continue
		}
		f.took = append(f.took, id)
		if left := f.stuck[id]; left > 0 {
			f.sealed[i].Live = left
			return s.Live - left, nil
		}
		f.sealed = append(f.sealed[:i], f.sealed[i+1:]...)
		if f.slow {
			f.counts.Pending++
		} else {
			f.counts.Unused++
		}
		if f.moved += s.Live; f.moved >= s.Capacity {
			f.moved -= s.Capacity
			f.counts.Unused--
		}
		return s.Live, nil
	}
	return 0, errors.New("no such segment")
}

// use takes segments as a user's writes do.
func (f *fake) use(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts.Unused -= n
	for range n {
		id := SegmentID(f.counts.Total + len(f.took) + len(f.sealed)*7919)
		f.sealed = append(f.sealed, SegmentInfo{ID: id, Live: 20, Capacity: 100, Sealed: uint64(id)})
	}
}

func mustNew(t *testing.T, cfg Config, targets ...Target) (*Collector, []*Device) {
	t.Helper()
	c, err := New(cfg, epoch)
	if err != nil {
		t.Fatal(err)
	}
	var ds []*Device
	for _, f := range targets {
		d, err := c.Add(f, epoch)
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, d)
	}
	return c, ds
}

// drain steps a device until it has nothing to do, and returns the last action.
func drain(t *testing.T, c *Collector, d *Device, f *fake, now time.Time) Action {
	t.Helper()
	for range 1000 {
		a := c.Step(d, now)
		if !a.Collect {
			return a
		}
		d.Done(f.collect(a.Victim.ID))
	}
	t.Fatal("the collection does not end")
	return Action{}
}

var marks = Config{Period: Period(time.Second), Thresholds: Thresholds{Count(4), Count(6), Count(10), Count(14)}}

func TestDeviceTurns(t *testing.T) {
	f := newFake("d0", 100, 12)
	c, ds := mustNew(t, marks, f)
	d := ds[0]
	at := func(ms int) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }

	if a := drain(t, c, d, f, at(0)); a.Until != at(1000) || len(f.took) != 0 {
		t.Fatalf("armed for %v, collected %v", a.Until.Sub(epoch), f.took)
	}
	drain(t, c, d, f, at(1000))
	if len(f.took) != 0 {
		t.Fatal("collected above the alternative low threshold")
	}
	f.use(3) // 9 left
	drain(t, c, d, f, at(1999))
	if len(f.took) != 0 {
		t.Fatal("collected before its turn")
	}
	drain(t, c, d, f, at(2000))
	if n := f.Count().Unused; n != 14 {
		t.Fatalf("an early collection ended at %d", n)
	}
	f.use(10) // 4 left
	drain(t, c, d, f, at(2100))
	if n := f.Count().Unused; n != 6 {
		t.Fatalf("a forced collection ended at %d", n)
	}
	s := d.Status(at(2100))
	if s.Totals.Early != 1 || s.Totals.Forced != 1 || s.TimeLeft != 900*time.Millisecond || len(s.Recent) != 2 {
		t.Fatalf("%+v", s)
	}
}

// A turn that comes during a forced collection makes it go on to the alternative mark.
func TestForcedBecomesEarly(t *testing.T) {
	f := newFake("d0", 100, 4)
	c, ds := mustNew(t, marks, f)
	a := c.Step(ds[0], epoch)
	if !a.Collect {
		t.Fatal("not forced")
	}
	ds[0].Done(f.collect(a.Victim.ID))
	drain(t, c, ds[0], f, epoch.Add(time.Second))
	if n := f.Count().Unused; n != 14 {
		t.Fatalf("ended at %d", n)
	}
}

func TestDefaultOnlyHasNoTimer(t *testing.T) {
	f := newFake("d0", 100, 8)
	cfg := marks
	cfg.Mode = DefaultOnly
	c, ds := mustNew(t, cfg, f)
	for i := range 10 {
		drain(t, c, ds[0], f, epoch.Add(time.Duration(i)*time.Second))
	}
	if len(f.took) != 0 {
		t.Fatal("collected early")
	}
	f.use(4)
	drain(t, c, ds[0], f, epoch.Add(time.Minute))
	if n := f.Count().Unused; n != 6 {
		t.Fatalf("ended at %d", n)
	}
}

// Segments that wait for a checkpoint count as unused: without that the collection would go on.
func TestPendingIsOnItsWay(t *testing.T) {
	f := newFake("d0", 100, 4)
	f.slow = true
	c, ds := mustNew(t, marks, f)
	a := drain(t, c, ds[0], f, epoch)
	if got := f.Count(); got.Unused+got.Pending != 6 || !a.Release {
		t.Fatalf("%+v, release %v", got, a.Release)
	}
	took := len(f.took)
	drain(t, c, ds[0], f, epoch.Add(time.Millisecond))
	if len(f.took) != took {
		t.Fatal("collected again while segments were pending")
	}
}

func TestFailedSegmentIsLeftAlone(t *testing.T) {
	f := newFake("d0", 100, 4)
	f.fail[0] = errors.New("segment 0: damaged block")
	c, ds := mustNew(t, marks, f)
	drain(t, c, ds[0], f, epoch)
	s := ds[0].Status(epoch)
	if s.Unused != 6 || s.Totals.Errors != 1 || s.LastError == "" {
		t.Fatalf("%+v", s)
	}
	f.sealed[0].Live-- // overwritten: worth another try
	delete(f.fail, 0)
	f.use(2)
	drain(t, c, ds[0], f, epoch)
	if f.took[len(f.took)-1] != 0 && f.took[len(f.took)-2] != 0 {
		t.Fatalf("segment 0 was not tried again: %v", f.took)
	}
}

// A segment some of whose blocks could not be moved, which is no error, is not the best victim for ever.
func TestSegmentThatIsNotEmptied(t *testing.T) {
	f := newFake("d0", 100, 4)
	f.stuck = map[SegmentID]int{0: 5}
	c, ds := mustNew(t, marks, f)
	for now := epoch; f.Count().Unused < 6; now = now.Add(retryAfter) {
		a := c.Step(ds[0], now)
		if !a.Collect || len(f.took) > 10 {
			t.Fatalf("%d unused, collected %v", f.Count().Unused, f.took)
		}
		ds[0].Done(f.collect(a.Victim.ID))
	}
	count := func() (n int) {
		for _, id := range f.took {
			if id == 0 {
				n++
			}
		}
		return n
	}
	if n := count(); n != 1 {
		t.Fatalf("collected %d times: %v", n, f.took)
	}
	f.sealed[0].Live--
	f.use(3)
	drain(t, c, ds[0], f, epoch.Add(time.Minute))
	if count() != 2 {
		t.Fatalf("not tried again when it had other blocks: %v", f.took)
	}
	delete(f.stuck, 0)
	f.sealed[0].Live, f.sealed[0].Opened = 5, 7 // another use of the segment
	f.use(3)
	drain(t, c, ds[0], f, epoch.Add(2*time.Minute))
	if count() != 3 {
		t.Fatalf("not tried again in another use: %v", f.took)
	}
}

// A device full of live blocks does not spin.
func TestNoVictim(t *testing.T) {
	f := newFake("d0", 100, 4)
	for i := range f.sealed {
		f.sealed[i].Live = 100
	}
	c, ds := mustNew(t, marks, f)
	if a := c.Step(ds[0], epoch); a.Collect || a.Until != epoch.Add(retryAfter) || ds[0].Collecting() {
		t.Fatalf("%+v", a)
	}
	if s := ds[0].Status(epoch); s.Totals.Forced != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestManual(t *testing.T) {
	f := newFake("d0", 100, 20)
	c, ds := mustNew(t, marks, f)
	ds[0].Request()
	drain(t, c, ds[0], f, epoch)
	if s := ds[0].Status(epoch); s.Totals.Manual != 1 || s.Unused < 60 {
		t.Fatalf("%+v", s)
	}
}

func TestConfigureIsAllOrNone(t *testing.T) {
	big, small := newFake("big", 1000, 500), newFake("small", 50, 25)
	c, ds := mustNew(t, Config{}, big, small)
	was := c.Status(epoch)
	if err := c.Configure(Config{Thresholds: Thresholds{AltHigh: Count(60)}}, epoch); !errors.Is(err, ErrTooHigh) {
		t.Fatalf("error %v", err)
	}
	for i, s := range c.Status(epoch) {
		if s.Limits != was[i].Limits {
			t.Fatalf("%s changed to %+v", s.Device, s.Limits)
		}
	}
	phase := 0.75
	err := c.Configure(Config{Period: Period(4 * time.Second), Policy: "cost-benefit", Placement: "sepgc",
		Devices: map[string]DeviceConfig{"small": {Phase: &phase, Thresholds: Thresholds{Low: Count(9)}}}}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	s := ds[1].Status(epoch)
	if s.Limits.Low != 9 || s.TimeLeft != 3*time.Second || s.Policy != "cost-benefit" || c.Placement().Name() != "sepgc" {
		t.Fatalf("%+v", s)
	}
	if _, err := c.Add(small, epoch); !errors.Is(err, ErrExists) {
		t.Fatalf("added twice: %v", err)
	}
	if err := c.Remove("none", epoch); !errors.Is(err, ErrUnknown) {
		t.Fatalf("removed what is not there: %v", err)
	}
}

// TestBackToAuto: a period that was set is no estimate to go on from, however long it was.
func TestBackToAuto(t *testing.T) {
	c, ds := mustNew(t, Config{Period: Period(100_000 * time.Hour)}, newFake("a", 100, 50), newFake("b", 100, 50))
	now := epoch.Add(time.Minute)
	if err := c.Configure(Config{}, now); err != nil {
		t.Fatal(err)
	}
	for _, d := range ds {
		if s := d.Status(now); s.Period != firstPeriod || s.TimeLeft > firstPeriod {
			t.Errorf("device %s: period %v, next turn in %v; want %v", s.Device, s.Period, s.TimeLeft, firstPeriod)
		}
	}
}

// The loop on the clock: four devices filled at the same rate take turns, none is ever forced, and no two collect
// at once.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c, err := New(Config{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		both := &overlap{}
		var fakes []*fake
		var ds []*Device
		for _, name := range []string{"a", "b", "c", "d"} {
			f := newFake(name, 1024, 40)
			f.each, f.overlap = 4*time.Millisecond, both
			d, err := c.Add(f, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			fakes, ds = append(fakes, f), append(ds, d)
		}
		c.Start(ctx)
		for range 2000 {
			time.Sleep(100 * time.Millisecond)
			for i, f := range fakes {
				f.use(1)
				ds[i].Changed()
			}
		}
		for _, s := range c.Status(time.Now()) {
			if s.Totals.Forced != 0 || s.Totals.Early < 100 || s.Unused < s.Limits.Low {
				t.Errorf("%+v", s)
			}
		}
		if both.top != 1 {
			t.Errorf("%d devices collected at once", both.top)
		}
		if err := c.Remove("d", time.Now()); err != nil {
			t.Error(err)
		}
		cancel()
		c.Wait()
	})
}
