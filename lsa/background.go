package lsa

import (
	"context"
	"time"
)

// start runs the array's own goroutines until stop.
func (a *Array) start() {
	w := &a.work
	w.wg.Go(a.checkpointLoop)
	w.wg.Go(func() { a.loop(w.prepare, time.Second, a.prepareSegments) })
	w.wg.Go(func() { a.loop(w.tidy, time.Second, a.tidy) })
	w.wg.Go(func() { a.loop(w.layers, time.Minute, a.giveBackLayers) })
	w.wg.Go(func() { a.loop(nil, time.Second, a.tryUnread) }) // alone: a disk may let it wait for long
	w.wg.Go(a.rebuildLoop)
	w.wg.Go(a.syncLoop)
	w.wg.Go(func() { a.loop(a.repairs.kicked, time.Minute, a.repairAll) })
}

// loop calls fn whenever it is kicked, and every so often.
func (a *Array) loop(kicked chan struct{}, every time.Duration, fn func()) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-a.work.ctx.Done():
			return
		case <-kicked:
		case <-t.C:
		}
		fn()
	}
}

// checkpointLoop makes checkpoints when they are due. A failed one is tried
// again after a while.
func (a *Array) checkpointLoop() {
	every := a.opts.CheckpointEvery
	if every < 0 {
		every = 1 << 62
	}
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-a.work.ctx.Done():
			return
		case <-a.work.checkpoint:
		case <-timer.C:
		}
		wait := every
		if a.checkpointDue() {
			if err := a.Checkpoint(a.work.ctx); err != nil {
				a.log.Error("checkpoint failed; it will be tried again", "error", err)
				wait = time.Second
			}
		}
		timer.Reset(wait)
	}
}

// checkpointDue: there is something to write, or to find out whether the store
// can be written again.
func (a *Array) checkpointDue() bool {
	if a.store.Problem() != nil {
		return true
	}
	if a.committed.Load() != a.checkpoint.lsn.Load() || a.blocks.Stats().Dirty > 0 {
		return true
	}
	return a.blocks.ViewsWaiting() > 0 || a.windowLow() || a.append.full.Load()
}

// windowLow: on some device too few segments are ready, and a checkpoint would
// make more so.
func (a *Array) windowLow() bool {
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	for _, d := range a.devs() {
		if d != nil && d.takesWrites() && a.readyLow(d) {
			return true
		}
	}
	return false
}

// tidy does what no client waits for.
func (a *Array) tidy() {
	if a.ballast.full.Load() {
		_ = a.ballast.take() // tried again at the next turn
	}
	a.rescueAll()
	a.endAwait()
	a.discardCold(time.Now())
	if a.blocks.ViewsWaiting() > 0.5 {
		kick(a.work.checkpoint) // reads make them, and may be all there is to do
	}
	kick(a.work.layers)
}

// giveBackLayers may take minutes, and slows down where a checkpoint is late, as
// it is while a device's records are not saved: nothing waits for it.
func (a *Array) giveBackLayers() {
	if err := a.tidyLayers(); err != nil && a.work.ctx.Err() == nil {
		a.log.Error("giving back the space of deleted layers failed; it will be tried again", "error", err)
	}
}

// stop ends the goroutines and waits for them.
func (a *Array) stop() {
	a.work.cancel()
	a.work.wg.Wait()
}

func newBackground() background {
	ctx, cancel := context.WithCancel(context.Background())
	return background{ctx: ctx, cancel: cancel,
		checkpoint: make(chan struct{}, 1), prepare: make(chan struct{}, 1), tidy: make(chan struct{}, 1), layers: make(chan struct{}, 1), sync: make(chan struct{}, 1), rebuild: make(chan struct{}, 1)}
}
