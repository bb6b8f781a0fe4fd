package gc

import (
	"context"
	"time"
)

const (
	// relaxedShare of the device's time goes to a collection that nothing urges.
	relaxedShare = 0.5
	// slotShare of the time until the next device's turn is what an early collection means to take.
	slotShare = 0.6
	// shortestPause is not worth waiting for alone: shorter ones add up first.
	shortestPause = 500 * time.Microsecond
)

// paceShare is the share of a device's time that its collection takes. It is a pure function of what the
// device knows of itself, and continuous in all of it: relaxed while there is room, and up to all of the time
// as the count sinks towards the default low threshold, or as the work left needs it to be done in time.
func paceShare(available int, l Limits, workLeft, timeLeft time.Duration) float64 {
	share := relaxedShare
	if workLeft > 0 {
		if timeLeft <= workLeft {
			return 1
		}
		share = max(share, float64(workLeft)/float64(timeLeft))
	}
	room := float64(available-l.Low) / (float64(l.AltLow-l.Low) / 2)
	return max(share, 1-(1-relaxedShare)*min(max(room, 0), 1))
}

// Pause takes note that a chunk of collection kept the device busy for worked, and says how long the collection
// should now leave the device to others.
func (d *Device) Pause(now time.Time, worked time.Duration) time.Duration {
	c := d.target.Count()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.run.worked += worked
	available := c.Unused + c.Pending
	var workLeft, timeLeft time.Duration
	if d.reason == Early {
		workLeft = time.Duration(d.workPerSegment * float64(max(0, d.limits.AltHigh-available)))
		timeLeft = time.Duration(slotShare*d.slot*float64(d.sched.period)) - now.Sub(d.run.turn)
	}
	d.share = paceShare(available, d.limits, workLeft, timeLeft)
	d.owed += time.Duration(float64(worked) * (1/d.share - 1))
	if d.owed < shortestPause {
		return 0
	}
	pause := d.owed
	d.owed = 0
	return pause
}

// Pace implements Pacer on the wall clock.
func (d *Device) Pace(ctx context.Context, worked time.Duration) error {
	pause := d.Pause(time.Now(), worked)
	if pause <= 0 {
		return ctx.Err()
	}
	return sleep(ctx, pause)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
