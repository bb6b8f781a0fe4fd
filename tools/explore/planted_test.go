//go:build lsad_planted

package main

import (
	"context"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"lsad/lsa"
	"lsad/tools/explore/crash"
)

// TestPlanted breaks each rule that crash safety rests on, one at a time, and
// sees that the explorer notices.
func TestPlanted(t *testing.T) {
	defer lsa.Plant("")
	for _, rule := range lsa.Rules() {
		t.Run(rule, func(t *testing.T) {
			if !lsa.Plant(rule) {
				t.Fatal("there is no such rule")
			}
			s := crash.Search{Seed: rand.Uint64() >> 16, Time: 2 * time.Minute, Workers: 2 * runtime.GOMAXPROCS(0)}
			r := s.Run(context.Background())
			if len(r.Violations) == 0 {
				t.Fatalf("nothing noticed in %v", r.Totals)
			}
			t.Logf("after %d states, %v: %.300s", r.Totals.States, r.Took.Round(time.Millisecond), r.Violations[0])
		})
	}
}
