package lsa

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
)

// clean fails the test if Check finds something in what a rig consists of.
func (r *rig) clean(when string) *CheckReport {
	r.t.Helper()
	report := r.check()
	for _, p := range report.Problems {
		r.t.Errorf("%s: %v", when, p)
	}
	if r.t.Failed() {
		r.t.FailNow()
	}
	return report
}

// check checks the rig's devices as they are; nobody may have them open. A
// small limit has it go through the map several times.
func (r *rig) check() *CheckReport {
	r.t.Helper()
	o := r.opts
	o.Devices, o.FS, o.Meta = r.devices(), r.fs, "meta"
	report, err := check(context.Background(), o, nil, 200)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// killed returns what a kill -9 at this instant leaves; the rig goes on.
func (r *rig) killed(rng *rand.Rand) *rig {
	k := &rig{t: r.t, opts: r.opts}
	k.mems = blockdev.KillAll(rng, r.mems, func() { k.fs = r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}) })
	return k
}

// powerLost returns what a loss of power at this instant leaves.
func (r *rig) powerLost(rng *rand.Rand) *rig {
	k := &rig{t: r.t, opts: r.opts}
	k.mems = blockdev.CrashAll(rng, r.mems, func() { k.fs = r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}) })
	return k
}

// TestCheckFindsNothing: an array that is sound has no problems, whether it was
// closed, killed or lost its power.
func TestCheckFindsNothing(t *testing.T) {
	for seed := uint64(11); seed < 11+uint64(times(2)); seed++ {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			m := &model{rig: newRig(t, 1+int(seed%4), 96/(1+int(seed%4))), rng: rng,
				volumes: map[string][]byte{}, snaps: map[string]map[string][]byte{}, handles: map[string]*Handle{}}
			m.addVolume("v0", make([]byte, modelSize), true)
			for i := range 120 {
				what := m.step()
				if i%15 == 14 {
					m.killed(rng).clean(fmt.Sprintf("killed at step %d, %s", i, what))
					m.powerLost(rng).clean(fmt.Sprintf("power lost at step %d, %s", i, what))
				}
			}
			if err := m.a.Close(); err != nil {
				t.Fatal(err)
			}
			if report := m.clean("closed"); report.Blocks == 0 || report.Volumes != len(m.volumes) {
				t.Fatalf("only %+v was looked at", report)
			}
		})
	}
}

// TestCheckUnderLoad: what a kill or a loss of power leaves in the middle of
// writes, trims, snapshots, flushes, checkpoints and collections has no
// problems, either.
func TestCheckUnderLoad(t *testing.T) {
	for seed := range uint64(times(2)) {
		rng := rand.New(rand.NewPCG(seed, 17))
		r := newRig(t, 1+int(seed%3), 48)
		h := r.volume("v", 4<<20)
		var mu sync.Mutex
		var left []*rig
		next, ops := 40, 0
		hook := func(op blockdev.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if ops++; ops != next || len(left) >= 12 {
				return nil
			}
			next += 1 + rng.IntN(40)
			if len(left)%2 == 0 {
				left = append(left, r.killed(rng))
			} else {
				left = append(left, r.powerLost(rng))
			}
			return nil
		}
		r.hook.Store(&hook)
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() { busy(t, h, rand.New(rand.NewPCG(seed, uint64(i)))) })
		}
		for i := range 8 {
			r.collect()
			err := errors.Join(r.a.Checkpoint(context.Background()), r.a.Snapshot(context.Background(), "v", fmt.Sprint("s", i)))
			if err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		mu.Lock()
		states := slices.Clone(left)
		mu.Unlock()
		if len(states) < 4 {
			t.Fatalf("only %d states were tried", len(states))
		}
		for i, k := range states {
			k.clean(fmt.Sprintf("seed %d, state %d", seed, i))
		}
	}
}

// busy writes, trims and flushes.
func busy(t *testing.T, h *Handle, rng *rand.Rand) {
	for range 60 {
		off, n := rng.Int64N(1000)*4096, (1+rng.IntN(20))*4096
		var err error
		switch rng.IntN(8) {
		case 0:
			err = h.Trim(off, int64(n))
		case 1:
			err = h.Flush()
		default:
			p := make([]byte, n)
			fill(p, rng)
			err = write(h, off, p)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
