package lsa

import (
	"context"
	"fmt"
	"math/rand/v2"
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
	for seed := uint64(11); seed <= 13; seed++ {
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
