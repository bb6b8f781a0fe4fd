package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"lsad/lsa"
)

// worker is one client of the array.
type worker struct {
	*Run
	ctx context.Context
	rng *rand.Rand
}

// workload runs some steps, shared by a few workers, and a collector, which is restless that many times.
func (r *Run) workload(ctx context.Context, steps, restless int) {
	workers := r.cfg.Writers
	if workers == 0 {
		workers = 1 + r.rng.IntN(4)
	}
	stop := make(chan struct{})
	var collector, wg sync.WaitGroup
	seed := r.rng.Uint64()
	collector.Go(func() { r.collector(ctx, stop, rand.New(rand.NewPCG(seed, 2)), restless) })
	for range workers {
		w := &worker{r, ctx, rand.New(rand.NewPCG(r.rng.Uint64(), 3))}
		wg.Go(func() {
			defer r.catch()
			for range steps / workers {
				if ctx.Err() != nil || w.broken() {
					return
				}
				w.step()
			}
		})
	}
	wg.Wait()
	r.background.Wait()
	close(stop)
	collector.Wait()
}

func (r *Run) broken() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.violation != nil
}

// report stops the workload with a violation.
func (r *Run) report(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.violation == nil {
		r.violation = err
	}
}

// expect reports an error that nothing explains. room: it may be for want of room.
func (r *Run) expect(what string, err error, room bool) {
	switch {
	case err == nil:
	case errors.Is(err, syscall.ENOSPC) && room:
		r.stats.change(func(t *Totals) { t.RefusedNoRoom++ })
	case r.faulted.Load():
	default:
		r.report(fmt.Errorf("%s failed and nothing was wrong: %w", what, err))
	}
}

// expectOf reports an error of a change of a volume's data. A device that dies is
// no reason for one where there are two copies.
func (r *Run) expectOf(v *volume, what string, err error) {
	switch {
	case r.mayHaveLost(v, err):
	case err != nil && v.copies == 2 && r.site.dead() >= 0 && !errors.Is(err, syscall.ENOSPC):
		r.report(fmt.Errorf("%s of a volume with two copies failed as one device died: %w", what, err))
	default:
		r.expect(what, err, true)
	}
}

// mayHaveLost: the error is that of a block whose only copy is lost.
func (r *Run) mayHaveLost(v *volume, err error) bool {
	return v.copies == 1 && r.troubled.Load() &&
		(errors.Is(err, lsa.ErrDamaged) || errors.Is(err, lsa.ErrMissingDevice) || errors.Is(err, errDead))
}

func (w *worker) step() {
	roll := w.rng.IntN(200)
	if w.cfg.Focus == Collections && w.rng.IntN(6) == 0 {
		w.collect(w.rng)
		w.checkpoint()
	} else if w.cfg.Devices && w.rng.IntN(w.rareDevices()) == 0 {
		w.deviceStep()
	} else if roll < 176 {
		w.dataStep(roll)
	} else {
		w.arrayStep(roll)
	}
}

func (w *worker) dataStep(roll int) {
	v := w.pick()
	if v == nil {
		time.Sleep(time.Microsecond)
		return
	}
	v.exclusive.RLock()
	defer v.exclusive.RUnlock()
	if v.unusable {
		return
	}
	switch {
	case roll < 90:
		w.write(v)
	case roll < 98:
		w.writeLarge(v)
	case roll < 112:
		w.trim(v)
	case roll < 126:
		w.zero(v)
	case roll < 140:
		w.flush(v, "flush")
	case roll < 154:
		if w.write(v) {
			w.flush(v, "fua")
		}
	default:
		w.read(v)
	}
}

func (w *worker) pick() *volume {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.volumes) == 0 {
		return nil
	}
	return w.volumes[w.rng.IntN(len(w.volumes))]
}

// extent draws a few blocks, or a part of some.
func (w *worker) extent(v *volume, most int) cellRange {
	island := w.rng.IntN(v.blocks / islandBlocks)
	from := w.rng.IntN(islandBlocks)
	n := min(1+w.rng.IntN(most), islandBlocks-from)
	e := cellRange{(island*islandBlocks + from) * cellsPerBlock, 0}
	e.to = e.from + n*cellsPerBlock
	if w.rng.IntN(5) == 0 {
		e.from += w.rng.IntN(cellsPerBlock)
		e.to -= w.rng.IntN(cellsPerBlock)
		e.to = max(e.to, e.from+1)
	}
	return e
}

// arrayStep does something to the array or to what volumes there are.
func (w *worker) arrayStep(roll int) {
	switch {
	case roll < 180:
		w.checkpoint()
	case roll < 185:
		w.collect(w.rng)
	case roll < 190:
		w.snapshot()
	case roll < 192:
		w.unsnapshot()
	case roll < 194:
		w.cloneSnapshot()
	case roll < 196:
		w.revert()
	case roll < 198:
		w.resize()
	case roll < 199:
		w.deleteVolume()
	default:
		if err := w.createVolume(w.ctx, w.rng); err != nil {
			w.report(err)
		}
	}
}
