package gcbench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"lsad/internal/blockdev"
)

// fillDepth requests are in flight while an export is filled.
const fillDepth = 32

// Fill writes the export once in order, then at random until overwrites times its size was written again, as fast
// as the server takes it.
func Fill(ctx context.Context, c *Conn, size int64, overwrites float64, seed uint64) error {
	const piece = 128 << 10
	c.limit(fillDepth)
	defer c.limit(maxInFlight)
	for off := int64(0); off < size; off += piece {
		if err := c.start(ctx, request{off: off, n: int(min(piece, size-off))}); err != nil {
			return fmt.Errorf("fill: %w", err)
		}
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	blocks := size / BlockSize
	return overwrite(ctx, c, int64(overwrites*float64(blocks)), func() int64 { return rng.Int64N(blocks) })
}

// Overwrite writes single blocks that next draws, as fast as the server takes them.
func Overwrite(ctx context.Context, c *Conn, writes int64, next func() int64) error {
	c.limit(fillDepth)
	defer c.limit(maxInFlight)
	return overwrite(ctx, c, writes, next)
}

func overwrite(ctx context.Context, c *Conn, writes int64, next func() int64) error {
	for range writes {
		if err := c.start(ctx, request{off: next() * BlockSize, n: BlockSize}); err != nil {
			return fmt.Errorf("overwrite: %w", err)
		}
	}
	return c.settle(ctx)
}

// Load is a steady load of single blocks at random.
type Load struct {
	Read bool
	Rate float64 // requests a second, at random (Poisson)
	Size int64   // of the export, bytes
	Seed uint64
}

// Run keeps the load up for a while, and returns the times of the requests that were due within it.
func (l *Load) Run(ctx context.Context, c *Conn, clock *blockdev.FineClock, length time.Duration) (Histogram, error) {
	rng := rand.New(rand.NewPCG(l.Seed, 2))
	blocks := l.Size / BlockSize
	due := time.Now()
	end := due.Add(length)
	behind := false
	for {
		due = due.Add(time.Duration(rng.ExpFloat64() / l.Rate * float64(time.Second)))
		if due.After(end) {
			break
		}
		clock.SleepUntil(due)
		now := time.Now()
		// A request waits from when it was due, unless it is the clock that was late.
		behind = behind && now.Sub(due) > time.Millisecond
		start := now
		if behind {
			start = due
		}
		r := request{start: start, off: rng.Int64N(blocks) * BlockSize, n: BlockSize, read: l.Read, timed: true}
		if len(c.free) == 0 {
			behind = true
		}
		if err := c.start(ctx, r); err != nil {
			return Histogram{}, fmt.Errorf("load: %w", err)
		}
	}
	if err := c.settle(ctx); err != nil {
		return Histogram{}, fmt.Errorf("load: %w", err)
	}
	return c.takeHistogram(), nil
}
