package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

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

// noChange is how long a collector makes room for writers none of whom comes to an end. Each gives up after ten seconds
// in which no segment becomes available, so there is an error in what is collected.
const noChange = time.Minute

// collector makes room when a writer waits for it. Besides, so many times as restless says, it collects or makes a
// checkpoint at once. Both have an end, since the watchdog would not see that all others wait while this goes on.
func (r *Run) collector(ctx context.Context, stop chan struct{}, rng *rand.Rand, restless int) {
	defer r.catch()
	for ; restless > 0 && !r.broken() && ctx.Err() == nil; restless-- {
		select {
		case <-stop:
			return
		default:
		}
		if rng.IntN(2) == 0 {
			r.collect(rng)
		} else {
			r.checkpoint()
		}
	}
	r.makeRoom(stop, rng)
}

// makeRoom does so until stop, or until it is of no use.
func (r *Run) makeRoom(stop chan struct{}, rng *rand.Rand) {
	last, since := r.changes.Load(), time.Now()
	for {
		select {
		case <-stop:
			return
		case <-r.spaceWanted:
			r.collect(rng)
			r.checkpoint()
		case <-time.After(time.Second): // nobody wants it
			since = time.Now()
		}
		if now := r.changes.Load(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > noChange {
			r.report(fmt.Errorf("collections go on for %v, and no writer that waits for them gets on", noChange))
			return
		}
	}
}

// collect collects the segment with the most garbage of one device, if there is any to speak of. It does so also when
// the search is over: a writer may wait for the room.
func (r *Run) collect(rng *rand.Rand) {
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
		_, err := r.a.Collect(context.Background(), slot, uint32(victim), nil)
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
