package crash

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Search is many runs, several at a time, each with a seed of its own.
type Search struct {
	Config     Config
	Seed       uint64 // of the first run; the next has the next
	States     int64  // stop after so many that count; 0: no bound
	Runs       int64  // 0: no bound
	Time       time.Duration
	Workers    int // runs at a time
	Violations int // stop after so many
	Progress   func(t Totals, took time.Duration)
}

// errEnough ends the other runs of a search that has found what it was to find.
var errEnough = errors.New("enough violations were found")

// Result of a Search.
type Result struct {
	Seed       uint64        `json:"seed"`
	Took       time.Duration `json:"took_ns"`
	Totals     Totals        `json:"totals"`
	Violations []*Violation  `json:"violations"`
}

// Run searches until one of the bounds is reached.
func (s *Search) Run(ctx context.Context) Result {
	begin := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if s.Time > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, s.Time)
		defer stop()
	}
	var stats Stats
	var mu sync.Mutex
	var found []*Violation
	var next atomic.Int64
	var wg sync.WaitGroup
	for range max(1, s.Workers) {
		wg.Go(func() {
			for ctx.Err() == nil {
				n := next.Add(1) - 1
				if s.Runs > 0 && n >= s.Runs || s.States > 0 && stats.Get().Counted >= s.States {
					return
				}
				c := s.Config
				c.Seed = s.Seed + uint64(n)
				err := Explore(ctx, c, &stats)
				stats.change(func(t *Totals) { t.Runs++ })
				var v *Violation
				if errors.As(err, &v) {
					mu.Lock()
					found = append(found, v)
					if len(found) >= max(1, s.Violations) {
						cancel(errEnough)
					}
					mu.Unlock()
				}
			}
		})
	}
	s.report(ctx, &wg, &stats, begin)
	return Result{s.Seed, time.Since(begin), stats.Get(), found}
}

// report shows progress until the runs have ended.
func (s *Search) report(ctx context.Context, wg *sync.WaitGroup, stats *Stats, begin time.Time) {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for every := 5 * time.Second; ; every = min(2*every, time.Minute) {
		select {
		case <-done:
			return
		case <-time.After(every):
			if s.Progress != nil {
				s.Progress(stats.Get(), time.Since(begin))
			}
		}
	}
}
