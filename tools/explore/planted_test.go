//go:build lsad_planted

package main

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"lsad/lsa"
	"lsad/tools/explore/crash"
)

// focus is what has to happen often for a broken rule to show soon.
var focus = map[string]crash.Focus{
	"failed-sync-stays":      crash.Faults,
	"void-failed-append":     crash.Faults,
	"rewrite-tail":           crash.Faults,
	"rescue-unsynced":        crash.Faults,
	"remember-failure":       crash.Faults,
	"void-wins":              crash.Faults,
	"gap-is-damage":          crash.Damage,
	"reuse-after-checkpoint": crash.Collections,
	"quiesce-readers":        crash.Collections,
	"move-checks-lsn":        crash.Collections,
	"moves-end-views":        crash.Collections,
	"remember-moves":         crash.Collections,
	"numbers-go-on":          crash.Collections,
	"gaps-of-lost-device":    crash.Losses,
	"trims-in-two-copies":    crash.Losses,
	"evacuate-first":         crash.Losses,
	"drop-behind-checkpoint": crash.Losses,
	"survivors-know-most":    crash.Losses,
}

// ofDevices are the rules that only matter where whole devices come and go.
var ofDevices = map[string]bool{
	"refuse-stale":            true,
	"give-up-first":           true,
	"survivors-know-most":     true,
	"gaps-of-lost-device":     true,
	"trims-in-two-copies":     true,
	"catalogue-in-two-copies": true,
	"copies-apart":            true,
	"repair-from-good":        true,
	"moves-keep-other-copy":   true,
	"rebuild-everything":      true,
	"evacuate-first":          true,
	"drop-behind-checkpoint":  true,
	"introduce-first":         true,
	"void-anywhere":           true,
}

// rare are the rules whose breaking takes a minute or two of both processors to notice, a few thousand states, as often as
// not. "make soak" has the time.
var rare = map[string]bool{
	"void-wins":           true,
	"void-anywhere":       true,
	"survivors-know-most": true,
	"numbers-go-on":       true,
}

// TestPlanted breaks each rule that crash safety rests on, one at a time, and
// sees that the explorer notices.
func TestPlanted(t *testing.T) {
	defer lsa.Plant("")
	for _, rule := range lsa.Rules() {
		t.Run(rule, func(t *testing.T) {
			if rare[rule] && os.Getenv("LSAD_SOAK") == "" {
				t.Skip("takes thousands of states: make soak looks for it")
			}
			if !lsa.Plant(rule) {
				t.Fatal("there is no such rule")
			}
			s := crash.Search{Config: crash.Config{Focus: focus[rule], Devices: ofDevices[rule]}, Seed: rand.Uint64() >> 16, Time: 5 * time.Minute, Workers: 2 * runtime.GOMAXPROCS(0)}
			r := s.Run(context.Background())
			if len(r.Violations) == 0 {
				t.Fatalf("nothing noticed in %v", r.Totals)
			}
			if strings.Contains(r.Violations[0].Where, "watchdog") {
				t.Fatalf("it got stuck: %v", r.Violations[0])
			}
			t.Logf("after %d states, %v: %.600s", r.Totals.States, r.Took.Round(time.Millisecond), r.Violations[0])
		})
	}
}
