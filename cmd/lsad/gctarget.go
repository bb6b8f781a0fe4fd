package main

import (
	"context"
	"sync/atomic"
	"time"

	"lsad/gc"
	"lsad/lsa"
)

// placer asks the placement that is set. Before the collection is, what is moved is kept apart.
type placer struct{ gc atomic.Pointer[gc.Collector] }

// Class implements lsa.Placement.
func (p *placer) Class(now, written uint64, known bool, class int, moved bool) int {
	c := p.gc.Load()
	if c == nil {
		if moved {
			return 1
		}
		return 0
	}
	return c.Placement().Place(gc.Block{Now: now, Written: written, Known: known, Class: class, Collected: moved})
}

// gcTarget is one device as its collector sees it.
type gcTarget struct {
	array   *lsa.Array
	slot    int
	name    string
	release chan<- struct{}
}

// Name implements gc.Target: the path in the data directory, so that settings stay with the device if that moves.
func (t *gcTarget) Name() string { return t.name }

// Count implements gc.Target.
func (t *gcTarget) Count() gc.Counts {
	unused, pending, total := t.array.Counts(t.slot)
	return gc.Counts{Unused: unused, Pending: pending, Total: total}
}

// Now implements gc.Target.
func (t *gcTarget) Now() uint64 { return t.array.LSN() }

// Candidates implements gc.Target.
func (t *gcTarget) Candidates(fn func(gc.SegmentInfo) bool) {
	t.array.Segments(t.slot, func(s lsa.SegmentInfo) bool {
		if s.State != "sealed" || s.Live == 0 || s.Damaged {
			return true
		}
		return fn(gc.SegmentInfo{
			ID: gc.SegmentID(s.Segment), Live: s.Live, Capacity: s.Capacity,
			Opened: s.FirstLSN, Sealed: s.MaxLSN, Class: s.Class,
		})
	})
}

// Collect implements gc.Target.
func (t *gcTarget) Collect(ctx context.Context, seg gc.SegmentID, pace gc.Pacer) (int, error) {
	return t.array.Collect(ctx, t.slot, uint32(seg), func(worked time.Duration) error { return pace.Pace(ctx, worked) })
}

// Release implements gc.Target.
func (t *gcTarget) Release() {
	select {
	case t.release <- struct{}{}:
	default:
	}
}
