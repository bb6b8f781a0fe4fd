package vmmtest

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// pages in the order in which to touch them.
func (o *Order) pages() []int {
	run := max(o.Run, 1)
	runs := make([]int, (o.Last-o.First+run-1)/run)
	for i := range runs {
		runs[i] = o.First + i*run
	}
	if o.Seed != 0 {
		rand.New(rand.NewPCG(o.Seed, 0)).Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
	}
	var all []int
	for _, first := range runs {
		for p := first; p < min(first+run, o.Last); p++ {
			all = append(all, p)
		}
	}
	return all
}

// measure reads a word of each page and takes the time of each.
func (v *machine) measure(o Order) (Answer, error) {
	runtime.LockOSThread()
	order := o.pages()
	if o.Some > 0 {
		order = order[:min(o.Some, len(order))]
	}
	took := make([]time.Duration, len(order))
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
		return Answer{}, err
	}
	mem, page := v.mem[o.Region], v.pages[o.Region]
	sum := byte(0)
	begin := time.Now()
	for i, p := range order {
		at := time.Now()
		sum += mem[int64(p)*page]
		took[i] = time.Since(at)
		for o.Pace > 0 && time.Since(at) < o.Pace { // as a guest that computes
		}
	}
	total := time.Since(begin)
	runtime.KeepAlive(sum)
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &after); err != nil {
		return Answer{}, err
	}
	slices.Sort(took)
	return Answer{
		Total: total, Median: took[len(took)/2], Tail: took[len(took)*99/100], MinorFaults: after.Minflt - before.Minflt,
	}, nil
}
