//go:build linux

package blockdev

import (
	"slices"
	"sync"
	"testing"
	"time"
)

func newFineClock(t testing.TB) *FineClock {
	t.Helper()
	c, err := NewFineClock()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Nobody is woken more than a little early, and everybody is.
func TestFineClockWakesEveryone(t *testing.T) {
	c := newFineClock(t)
	defer c.Close()
	var wg sync.WaitGroup
	for g := range 20 {
		wg.Go(func() {
			rng := newRand(uint64(g))
			for range 50 {
				at := c.Now().Add(time.Duration(rng.IntN(1_000_000)))
				c.SleepUntil(at)
				if before := time.Until(at); before > early {
					t.Errorf("woken %v early", before)
				}
			}
		})
	}
	wg.Wait()
	c.SleepUntil(time.Now().Add(-time.Hour))
}

func TestFineClockCloseWakes(t *testing.T) {
	c := newFineClock(t)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() { c.SleepUntil(time.Now().Add(time.Hour)) })
	}
	for waiting := 0; waiting < 5; {
		c.mu.Lock()
		waiting = len(c.sleepers)
		c.mu.Unlock()
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	c.SleepUntil(time.Now().Add(time.Hour))
}

// BenchmarkFineClock reports how late the sleepers of 100 us are woken.
func BenchmarkFineClock(b *testing.B) {
	c := newFineClock(b)
	defer c.Close()
	var late []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		at := c.Now().Add(100 * time.Microsecond)
		c.SleepUntil(at)
		late = append(late, time.Since(at))
	}
	slices.Sort(late)
	b.ReportMetric(float64(late[len(late)/2].Nanoseconds()), "ns-late-p50")
	b.ReportMetric(float64(late[len(late)*99/100].Nanoseconds()), "ns-late-p99")
}

// BenchmarkSlow reads from four disks at depth 8 each, as a benchmark of the
// collector does; the disks can do 4 x 80,000 reads a second.
func BenchmarkSlow(b *testing.B) {
	c := newFineClock(b)
	defer c.Close()
	timing := Timing{Channels: 8, StripeBytes: 64 << 10, Read: 100 * time.Microsecond, Write: 30 * time.Microsecond}
	var disks []*Slow
	for range 4 {
		d, err := NewSlow(NewDurableMem("m", 1<<30), timing, c)
		if err != nil {
			b.Fatal(err)
		}
		disks = append(disks, d)
	}
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		p := make([]byte, 4096)
		for i := 0; pb.Next(); i++ {
			if err := disks[i%4].ReadAt(p, int64(i%1000)*4096); err != nil {
				b.Error(err)
			}
		}
	})
}
