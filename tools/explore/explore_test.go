package main

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"lsad/tools/explore/crash"
)

// TestExplore looks for violations with a fresh seed for a while: a few seconds, or
// twenty with LSAD_TEST=full. `make soak` goes on for 200,000 states.
func TestExplore(t *testing.T) { explore(t, false, 4*time.Second, 20*time.Second) }

// TestExploreDevices is TestExplore of whole devices that die, are lost, come and go.
func TestExploreDevices(t *testing.T) { explore(t, true, 2*time.Second, 10*time.Second) }

func explore(t *testing.T, devices bool, short, full time.Duration) {
	t.Helper()
	s := crash.Search{Config: crash.Config{Devices: devices, Copies: true, Restless: true}, Time: short, Workers: 2 * runtime.GOMAXPROCS(0)}
	if os.Getenv("LSAD_TEST") == "full" {
		s.Time = full
	}
	var err error
	if s.Config.Keep, err = os.MkdirTemp("", "lsad-explore-"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if !t.Failed() { // else the states are what there is to look at
			os.RemoveAll(s.Config.Keep)
		}
	}()
	const tries = 10 // on a busy machine the first lives may take longer than there is time
	for range tries {
		s.Seed = rand.Uint64() >> 16
		r := s.Run(context.Background())
		t.Logf("seeds from %d on: %v in %v", r.Seed, r.Totals, r.Took.Round(time.Millisecond))
		for _, v := range r.Violations {
			t.Errorf("go run ./tools/explore -runs 1 -parallel 1 -devices=%v -seed %d\n%v", devices, v.Seed, v)
		}
		if r.Totals.States > 0 {
			return
		}
	}
	t.Error("no state was checked")
}

// TestSameSeed: a seed draws the same array and the same workload again.
func TestSameSeed(t *testing.T) {
	var first crash.Totals
	for i := range 2 {
		s := crash.Search{Seed: 42, Runs: 1, Workers: 1, Config: crash.Config{Writers: 1, Lives: 1}}
		r := s.Run(context.Background())
		if len(r.Violations) > 0 {
			t.Fatal(r.Violations[0])
		}
		if i == 0 {
			first = r.Totals
		} else if r.Totals.Acknowledged != first.Acknowledged || r.Totals.AdminChanges != first.AdminChanges {
			t.Errorf("%d changes and %d administrative ones, then %d and %d", first.Acknowledged, first.AdminChanges, r.Totals.Acknowledged, r.Totals.AdminChanges)
		}
	}
}
