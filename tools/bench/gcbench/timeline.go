package gcbench

import (
	"cmp"
	"slices"
	"time"

	"lsad/server/admin"
)

// Timeline gathers the collections that a server reports. It shows the last few of each device, so it has to be
// asked often enough.
type Timeline struct {
	runs map[key]admin.GCRun
}

type key struct {
	device string
	began  time.Time
}

// Observe takes in what a server reports.
func (t *Timeline) Observe(all []admin.GCDevice) {
	if t.runs == nil {
		t.runs = map[key]admin.GCRun{}
	}
	for _, d := range all {
		for _, r := range d.Recent {
			t.runs[key{d.Device, r.Began}] = r
		}
	}
}

// Collections are what a timeline says of a span of time.
type Collections struct {
	Early  int `json:"early"`
	Forced int `json:"forced"`
	// Collecting[i] is the share of the time with i devices collecting.
	Collecting []float64 `json:"collecting_share"`
	// Duty is the sum of the shares of the time in which each device collects: devices times duty cycle.
	Duty float64 `json:"duty"`
}

// Overlap is the share of the time with two or more devices collecting.
func (c *Collections) Overlap() float64 {
	sum := 0.0
	for i := 2; i < len(c.Collecting); i++ {
		sum += c.Collecting[i]
	}
	return sum
}

// Between sums up a span of time on so many devices.
func (t *Timeline) Between(from, to time.Time, devices int) Collections {
	type edge struct {
		at    time.Time
		delta int
	}
	var edges []edge
	c := Collections{Collecting: make([]float64, devices+1)}
	for _, r := range t.runs {
		began, ended := r.Began, r.Began.Add(time.Duration(r.Seconds*float64(time.Second)))
		if ended.Before(from) || began.After(to) {
			continue
		}
		switch {
		case began.Before(from): // counted before
		case r.Reason == "early":
			c.Early++
		case r.Reason == "forced":
			c.Forced++
		}
		edges = append(edges, edge{later(began, from), 1}, edge{earlier(ended, to), -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.delta, b.delta)) })
	span, at, n := float64(to.Sub(from)), from, 0
	for _, e := range append(edges, edge{to, 0}) {
		c.Collecting[n] += float64(e.at.Sub(at)) / span
		c.Duty += float64(n) * float64(e.at.Sub(at)) / span
		at, n = e.at, min(max(n+e.delta, 0), devices)
	}
	return c
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
