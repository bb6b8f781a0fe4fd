package qemu

import "time"

// pace holds the background to a rate. What is asked for never waits, but counts.
type pace struct {
	rate int64 // bytes per second, 0 for no limit
	next time.Time
}

// maxDebt bounds how long the background stands still after many pages were asked for.
const maxDebt = time.Second

// wait is how long the background has to wait.
func (p *pace) wait(now time.Time) time.Duration {
	if p.rate == 0 {
		return 0
	}
	return max(0, p.next.Sub(now))
}

// sent counts bytes.
func (p *pace) sent(now time.Time, n int64) {
	if p.rate == 0 {
		return
	}
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	if limit := now.Add(maxDebt); p.next.After(limit) {
		p.next = limit
	}
}
