package crash

import (
	"context"
	"errors"
	"math/rand/v2"

	"lsad/lsa"
)

func (r *Run) checkpoint() {
	r.checkpointing.Add(1)
	c := &op{kind: "checkpoint", inv: r.clock.Add(1)}
	err := r.a.Checkpoint(context.Background())
	r.checkpointing.Add(-1)
	if err == nil {
		c.ack = r.clock.Add(1)
		r.mu.Lock()
		r.checkpoints = append(r.checkpoints, c)
		r.mu.Unlock()
		r.stats.change(func(t *Totals) { t.Checkpoints++ })
	}
	r.expect("checkpoint", err, false)
}

// collector makes room when a writer waits for it. Besides, so many times as restless says, it collects or makes a
// checkpoint at once: that has an end, since the watchdog would not see that all others wait while this goes on.
func (r *Run) collector(ctx context.Context, stop chan struct{}, rng *rand.Rand, restless int) {
	defer r.catch()
	for ; restless > 0; restless-- {
		select {
		case <-stop:
			return
		default:
		}
		if r.broken() || ctx.Err() != nil {
			return
		}
		if rng.IntN(2) == 0 {
			r.collect(ctx, rng)
		} else {
			r.checkpoint()
		}
	}
	for {
		select {
		case <-stop:
			return
		case <-r.spaceWanted:
			r.collect(ctx, rng)
			r.checkpoint()
		}
	}
}

// collect collects the segment with the most garbage of one device, if there is any to speak of.
func (r *Run) collect(ctx context.Context, rng *rand.Rand) {
	r.collecting.Add(1)
	defer r.collecting.Add(-1)
	devices := r.a.Devices()
	for _, slot := range rng.Perm(len(devices)) {
		if devices[slot].State != "in service" {
			continue // it would give no room
		}
		victim, least := -1, 1<<30
		r.a.Segments(slot, func(s lsa.SegmentInfo) bool {
			if s.State == "sealed" && !s.Damaged && s.Live > 0 && s.Live < min(least, s.Capacity*97/100) {
				victim, least = int(s.Segment), s.Live
			}
			return true
		})
		if victim < 0 {
			continue
		}
		_, err := r.a.Collect(ctx, slot, uint32(victim), nil)
		if err != nil && errors.Is(err, lsa.ErrInvalid) {
			continue // it was freed meanwhile
		}
		// In a full array there may be no room for what it moves: it has to wait
		// for a trim. That writers do not wait for it then, the watchdog sees.
		r.expect("collect", err, true)
		if err == nil {
			r.stats.change(func(t *Totals) { t.Collections++ })
		}
		return
	}
}
