package vmmtest

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// measure reads a word of each page and takes the time of each.
func (v *machine) measure(o Order) (Answer, error) {
	runtime.LockOSThread()
	order := make([]int, o.Last-o.First)
	for i := range order {
		order[i] = o.First + i
	}
	if o.Seed != 0 {
		rand.New(rand.NewPCG(o.Seed, 0)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
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
