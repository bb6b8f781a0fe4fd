package sim

import (
	"math"

	"lsad/gc"
)

// count begins to measure.
func (t *timed) count() {
	t.changed()
	t.counting, t.since = true, t.now
	t.resetCounters()
	t.base = t.totals()
}

func (t *timed) totals() (sum gc.Totals) {
	for _, s := range t.gc.Status(t.time()) {
		sum.Early += s.Totals.Early
		sum.Forced += s.Totals.Forced
	}
	return sum
}

func (t *timed) report() Report {
	cfg := t.spec.GC.Normal()
	length := float64(t.now - t.since)
	r := Report{
		Mechanism: t.cfg.Mechanism, Policy: cfg.Policy, Placement: cfg.Placement, Spec: t.spec, Rate: t.cfg.Rate,
		Seconds: length / 1e9, Amplification: t.Amplification(), Period: t.gc.Period().Seconds(),
		Reads: t.reads.latency(), Writes: t.writes.latency(), Stalls: t.stalls,
	}
	for n, ns := range t.share {
		s := float64(ns) / math.Max(1, length)
		r.Collecting = append(r.Collecting, s)
		r.DutySum += float64(n) * s
		if n >= 2 {
			r.Overlap += s
		}
	}
	now := t.totals()
	r.Early, r.Forced = now.Early-t.base.Early, now.Forced-t.base.Forced
	if n := r.Early + r.Forced; n > 0 {
		r.EarlyShare = float64(r.Early) / float64(n)
	}
	from := float64(t.now)/1e9 - t.cfg.Timeline
	for _, i := range t.timeline {
		if i.To > from {
			i.From, i.To = math.Max(0, i.From-from), i.To-from
			r.Timeline = append(r.Timeline, i)
		}
	}
	return r
}

func (h *histogram) latency() Latency {
	if h.total == 0 {
		return Latency{}
	}
	us := func(q float64) float64 { return float64(h.quantile(q)) / 1e3 }
	l := Latency{Count: h.total, P50: us(.5), P90: us(.9), P99: us(.99), P999: us(.999), P9999: us(.9999), Max: float64(h.max) / 1e3}
	for i := range curvePoints {
		l.Curve = append(l.Curve, us(1-math.Pow(10, -float64(i)/8)))
	}
	return l
}

// curvePoints reach to the quantile 0.99999.
const curvePoints = 41
