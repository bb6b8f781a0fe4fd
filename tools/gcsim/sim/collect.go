package sim

import (
	"time"

	"lsad/gc"
)

// look asks the collector of a device what to do.
func (t *timed) look(q *queue) {
	if q.chunk != never {
		q.step = never // it is collecting, and is asked again after that
		return
	}
	if t.cfg.Mechanism == Oracle && !t.mayCollect(q) {
		q.step = t.now + int64(100*time.Microsecond)
		return
	}
	was := t.gc.Period()
	act := t.gc.Step(q.d.gc, t.time())
	if t.gc.Period() != was {
		for i := range t.queues {
			t.queues[i].step = t.now
		}
	}
	q.step = int64(act.Until.Sub(epoch))
	if act.Collect {
		q.victim, q.pos, q.moved, q.step = act.Victim, 0, 0, never
		t.startChunk(q)
	}
	t.note(q)
}

// mayCollect is the token of the oracle: one device at a time, the one with the fewest unused segments first.
func (t *timed) mayCollect(q *queue) bool {
	if t.token == q.d.index {
		return true
	}
	if t.token >= 0 {
		return false
	}
	for _, d := range t.devs {
		if len(d.free)+len(d.pending) < len(q.d.free)+len(q.d.pending) {
			return false
		}
	}
	return true
}

// startChunk relocates the next live blocks of the victim; they occupy the device until q.chunk.
func (t *timed) startChunk(q *queue) {
	s := &t.cfg.Service
	moved, pos, err := q.d.relocate(q.victim.ID, q.pos, s.ChunkBlocks)
	q.pos, q.moved, q.err = pos, q.moved+moved, err
	q.last = err != nil || pos >= q.d.per
	q.occupied = time.Duration(float64(s.Chunk+time.Duration(moved)*s.Move) * q.slow)
	q.busy = max(q.busy, t.now) + int64(q.occupied)
	q.chunk = q.busy
}

// finish ends a chunk, or the pause after one.
func (t *timed) finish(q *queue) error {
	if q.occupied > 0 {
		pause := q.d.gc.Pause(t.time(), q.occupied)
		if q.occupied = 0; pause > 0 {
			q.chunk = t.now + int64(pause)
			return nil
		}
	}
	if !q.last {
		t.startChunk(q)
		return nil
	}
	q.d.gc.Done(q.moved, q.err)
	q.chunk, q.step = never, t.now
	return nil
}

// note keeps the books of who collects.
func (t *timed) note(q *queue) {
	active := q.d.gc.Collecting()
	if active == q.active {
		return
	}
	t.changed()
	q.active = active
	if active {
		t.active++
		q.began, q.forcedWas = t.now, q.d.gc.Status(t.time()).Totals.Forced
		t.token = q.d.index
		return
	}
	t.active--
	if t.token == q.d.index {
		t.token = -1
	}
	why := gc.Early
	if q.d.gc.Status(t.time()).Totals.Forced != q.forcedWas {
		why = gc.Forced
	}
	if t.counting && t.cfg.Timeline > 0 {
		t.timeline = append(t.timeline, Interval{q.d.index, float64(q.began) / 1e9, float64(t.now) / 1e9, why.String()})
	}
}

// changed adds the time since the last change to the count of devices that collected.
func (t *timed) changed() {
	if t.counting {
		t.share[t.active] += t.now - t.lastChange
	}
	t.lastChange = t.now
}
