// Command explore looks for crashes that break a promise of the array. It
// runs random workloads on arrays in memory, crashes them at random instants,
// and checks what is left: see package crash and docs/CRASH.md.
//
//	go run ./tools/explore -states 200000
//	go run ./tools/explore -devices -states 200000
//	go run ./tools/explore -seed 12345 -runs 1 -v
//
// It exits with 1 if it found a violation, and prints the seed that shows it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"time"

	"lsad/tools/explore/crash"
)

func main() {
	var o crash.Search
	var seed uint64
	var profile string
	var asJSON, quiet, verbose bool
	flag.Int64Var(&o.States, "states", 10000, "stop after so many `states` that count")
	flag.Int64Var(&o.Runs, "runs", 0, "stop after so many `runs`; 0 for no bound")
	flag.DurationVar(&o.Time, "time", 0, "stop after so `long`; 0 for no bound")
	flag.Uint64Var(&seed, "seed", 0, "first `seed`; 0 draws one")
	flag.IntVar(&o.Workers, "parallel", 2*runtime.GOMAXPROCS(0), "`runs` at a time")
	flag.IntVar(&o.Config.Writers, "writers", 0, "goroutines of the workload; 0 draws 1 to 4")
	flag.BoolVar(&o.Config.AnyDeaths, "any-deaths", false, "with -devices: devices die also under volumes of one copy")
	flag.BoolVar(&o.Config.Copies, "copies", true, "also volumes with two copies")
	flag.BoolVar(&o.Config.Devices, "devices", false, "devices that die, are lost, come back, come and go; damage to one of them; scrubs and rebuilds")
	flag.BoolVar(&o.Config.Restless, "restless", true, "in most lives there is always a checkpoint or a collection under way")
	flag.IntVar((*int)(&o.Config.Focus), "focus", 0, "1: more devices that fail, 2: more damage, 3: more collections, 4: more devices that are lost")
	flag.IntVar(&o.Violations, "violations", 1, "stop after so many `violations`")
	flag.StringVar(&o.Config.Keep, "keep", "", "write the state on which a violation was seen into a directory below this `directory`, with what was done and logged until then")
	flag.StringVar(&profile, "cpuprofile", "", "write a CPU profile to `file`")
	flag.BoolVar(&asJSON, "json", false, "print the totals as JSON")
	flag.BoolVar(&quiet, "q", false, "print one line, with the result")
	flag.BoolVar(&verbose, "v", false, "show what the arrays log")
	flag.Parse()
	if seed == 0 {
		seed = rand.Uint64() >> 16
	}
	o.Seed = seed
	if verbose {
		o.Config.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_ = pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if !asJSON && !quiet {
		fmt.Printf("seeds from %d on, %d runs at a time\n", seed, o.Workers)
		o.Progress = func(t crash.Totals, took time.Duration) {
			fmt.Printf("%8.0fs  %s\n", took.Seconds(), t)
		}
	}
	r := o.Run(ctx)
	if asJSON {
		_ = json.NewEncoder(os.Stdout).Encode(r)
	} else {
		fmt.Printf("%d violations in %v, seeds from %d on, %.0f states/s: %v\n", len(r.Violations), r.Took.Round(time.Millisecond), r.Seed, float64(r.Totals.States)/r.Took.Seconds(), r.Totals)
	}
	for _, v := range r.Violations {
		fmt.Fprintf(os.Stderr, "VIOLATION %v\n  again: go run ./tools/explore -runs 1 -parallel 1 -writers %d -focus %d -devices=%v -restless=%v -seed %d\n", v, o.Config.Writers, o.Config.Focus, o.Config.Devices, o.Config.Restless, v.Seed)
	}
	if len(r.Violations) > 0 {
		pprof.StopCPUProfile()
		os.Exit(1)
	}
}
