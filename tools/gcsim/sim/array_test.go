package sim

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"lsad/gc"
)

func mustArray(t *testing.T, s Spec) *Array {
	t.Helper()
	a, err := NewArray(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// verify checks the array's books against its map.
func (a *Array) verify() error {
	live := make([]map[uint32]int32, len(a.devs))
	for i := range live {
		live[i] = map[uint32]int32{}
	}
	for c := range a.spec.Copies {
		for b, at := range a.maps[c] {
			if at == mapNowhere {
				continue
			}
			d := a.devs[at>>32]
			if d.owner[uint32(at)] != uint32(b)|uint32(c)<<31 {
				return fmt.Errorf("block %d, copy %d: place %d of %s belongs to another", b, c, uint32(at), d.name)
			}
			if c == 1 && a.maps[0][b]>>32 == at>>32 {
				return fmt.Errorf("block %d: both copies on %s", b, d.name)
			}
			live[d.index][uint32(at)/uint32(d.per)]++
		}
	}
	for _, d := range a.devs {
		total, in := 0, map[state]int{}
		for i, s := range d.segs {
			if s.live != live[d.index][uint32(i)] {
				return fmt.Errorf("%s segment %d: %d live blocks by its count, %d by the map", d.name, i, s.live, live[d.index][uint32(i)])
			}
			total += int(s.live)
			in[s.state]++
		}
		if total != d.live || in[unused] != len(d.free) || in[pending] != len(d.pending) {
			return fmt.Errorf("%s: %d live, %d unused, %d pending by its counts; %d, %d, %d by its segments", d.name, d.live, len(d.free), len(d.pending), total, in[unused], in[pending])
		}
	}
	return nil
}

// The simulated map and the counts agree after any mixture, also on an array too full to be comfortable.
func TestBooks(t *testing.T) {
	for _, copies := range []int{1, 2} {
		for _, u := range []float64{.5, .9} {
			for _, placement := range gc.PlacementNames() {
				a := mustArray(t, Spec{Devices: 3, Segments: 96, SegmentBlocks: 16, Utilisation: u, Copies: copies, GC: gc.Config{Placement: placement}})
				tr, err := NewTrace(TraceSpec{Kind: "zipf", Exponent: 1, Seed: 7}, a.spec.Blocks, 10_000)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := a.Untimed(tr, time.Millisecond, 0); err != nil {
					t.Fatalf("%d copies, utilisation %v, %s: %v", copies, u, placement, err)
				}
				if err := a.verify(); err != nil {
					t.Fatalf("%d copies, utilisation %v, %s: %v", copies, u, placement, err)
				}
			}
		}
	}
}

// small is a configuration of a second or less.
func small(mechanism string) Config {
	return Config{
		Mechanism: mechanism,
		Spec:      Spec{Devices: 4, Segments: 256, SegmentBlocks: 32, Utilisation: .8},
		Trace:     TraceSpec{Kind: "zipf", Exponent: 1, Seed: 3, Reads: .3},
		Service:   DefaultService, Rate: 20_000, Warm: 60_000, Requests: 20_000, Timeline: 1,
	}
}

// The books also agree after a simulation with service times, where requests come in the middle of collections;
// and the same configuration gives the same report.
func TestRunIsConsistentAndDeterministic(t *testing.T) {
	for _, m := range Mechanisms {
		for _, copies := range []int{1, 2} {
			cfg := small(m)
			cfg.Spec.Copies = copies
			r, err := Run(cfg)
			if err != nil {
				t.Fatalf("%s: %v", m, err)
			}
			again, err := Run(cfg)
			if err != nil || !reflect.DeepEqual(r, again) {
				t.Errorf("%s: a second run differs: %+v, then %+v", m, r, again)
			}
			if n := r.Reads.Count + r.Writes.Count; n != uint64(cfg.Requests) {
				t.Errorf("%s: %d requests measured of %d", m, n, cfg.Requests)
			}
			sum := 0.0
			for _, s := range r.Collecting {
				sum += s
			}
			if sum < .999 || sum > 1.001 {
				t.Errorf("%s: shares of time sum to %v", m, sum)
			}
			if m == Oracle && r.Overlap != 0 {
				t.Errorf("two devices had the oracle's token")
			}
			if m == DefaultOnly && r.Early != 0 {
				t.Errorf("%d early collections without timers", r.Early)
			}
		}
	}
}

func TestSpecRefused(t *testing.T) {
	for name, s := range map[string]Spec{
		"no devices":           {Segments: 64, SegmentBlocks: 8, Utilisation: .5},
		"two copies, 1 device": {Devices: 1, Segments: 64, SegmentBlocks: 8, Utilisation: .5, Copies: 2},
		"too full":             {Devices: 1, Segments: 64, SegmentBlocks: 8, Utilisation: 1},
		"too small":            {Devices: 1, Segments: 4, SegmentBlocks: 8, Utilisation: .5},
	} {
		if _, err := NewArray(s); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	c := small("chance")
	if _, err := Run(c); err == nil {
		t.Error("mechanism chance: taken")
	}
	c = small(Timers)
	c.Rate = 0
	if _, err := Run(c); err == nil {
		t.Error("a rate of zero: taken")
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for i := int64(1); i <= 100_000; i++ {
		h.add(i * 10)
	}
	for _, q := range []float64{.01, .5, .9, .99, .999, .9999} {
		got, want := float64(h.quantile(q)), q*1e6
		if got < want*.999 || got > want*1.04 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if h.quantile(1) != 1_000_000 {
		t.Errorf("the maximum is %d", h.quantile(1))
	}
	for v := int64(0); v < 1<<40; v = v*17/16 + 1 {
		if b := bucket(v); lower(b) > v || lower(b+1) <= v {
			t.Fatalf("%d is in bucket %d, from %d to %d", v, b, lower(b), lower(b+1))
		}
	}
}
