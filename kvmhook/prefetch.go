package kvmhook

import "math"

// Prefetch is what is known of the use of pages that came before anybody asked for them. It is an estimate, from pages
// that were held back at random (package comment). Nothing is held back of huge pages.
type Prefetch struct {
	Bytes           int64 `json:"bytes"`             // prefetched, but for huge pages
	NotSampledBytes int64 `json:"not_sampled_bytes"` // prefetched as huge pages
	HeldPages       int64 `json:"held_pages"`        // held back now
	UsedPages       int64 `json:"used_pages"`        // that were to be held back, and that a guest asked for
	DroppedPages    int64 `json:"dropped_pages"`     // held back and removed
	ReleasedPages   int64 `json:"released_pages"`    // held back until the time was over
	// Estimate of the use so far; none before there is anything to estimate from.
	Estimate *Estimate `json:"estimate,omitempty"`
}

// Estimate is about all that was prefetched.
type Estimate struct {
	UsedShare float64 `json:"used_share"` // 0 to 1
	// Low and High bound it, with a confidence of 95 %.
	Low         float64 `json:"low"`
	High        float64 `json:"high"`
	UsedBytes   int64   `json:"used_bytes"`
	WastedBytes int64   `json:"wasted_bytes"` // so far
}

// prefetch of a session. What is counted meanwhile may be in one number and not in another.
func (c *counters) prefetch() Prefetch {
	p := Prefetch{
		NotSampledBytes: c.filledHuge.Load(), HeldPages: max(0, c.held.Load()),
		UsedPages: c.fates[usedPage].Load(), DroppedPages: c.fates[droppedPage].Load(), ReleasedPages: c.fates[releasedPage].Load(),
	}
	p.Bytes = c.around.Load() + c.filled.Load() - p.NotSampledBytes + (p.HeldPages+p.DroppedPages)*smallPage
	p.Estimate = estimate(p.UsedPages, p.UsedPages+p.HeldPages+p.DroppedPages+p.ReleasedPages, p.Bytes)
	return p
}

// estimate is Wilson's score interval, which also holds where few or nearly all of the pages were used.
func estimate(used, of, bytes int64) *Estimate {
	if of == 0 {
		return nil
	}
	const z = 1.96 // of the normal distribution, for 95 %
	n, share := float64(of), float64(used)/float64(of)
	middle := (share + z*z/(2*n)) / (1 + z*z/n)
	reach := z / (1 + z*z/n) * math.Sqrt(share*(1-share)/n+z*z/(4*n*n))
	e := &Estimate{UsedShare: share, Low: max(0, middle-reach), High: min(1, middle+reach)}
	switch used { // exactly, whatever the arithmetic above leaves
	case 0:
		e.Low = 0
	case of:
		e.High = 1
	}
	e.UsedBytes = int64(share * float64(bytes))
	e.WastedBytes = bytes - e.UsedBytes
	return e
}
