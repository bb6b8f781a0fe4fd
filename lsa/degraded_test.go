package lsa

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// TestDeviceDies: an array of volumes with one and two copies loses a device at
// a random instant, goes on without it, is killed and crashed, and does not
// take it back.
func TestDeviceDies(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { testDeviceDies(t, seed) })
	}
}

func testDeviceDies(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 33))
	devices := 2 + int(seed%3)
	r := newRig(t, devices, 160/devices)
	one := r.volume("one", 2<<20)
	r.copies = 2
	two := r.volume("two", 2<<20)
	want := map[string][]byte{"one": make([]byte, 2<<20), "two": make([]byte, 2<<20)}
	change := func(h *Handle, data []byte) {
		t.Helper()
		off := rng.IntN(len(data)/4096-8) * 4096
		p := data[off : off+4096*(1+rng.IntN(8))]
		fill(p, rng)
		if err := write(h, int64(off), p); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 300 {
		change(one, want["one"])
		change(two, want["two"])
		switch {
		case i == 100 || i == 200 && seed&1 == 0:
			if err := r.a.Checkpoint(context.Background()); err != nil {
				t.Fatal(err)
			}
		case i%50 == 0:
			if err := two.Flush(); err != nil {
				t.Fatal(err)
			}
		case i == 150:
			r.collect()
		}
	}
	victim := int(seed) % devices
	r.away[victim] = true
	r.opts.Degraded = true
	r.kill(rng)
	if r.a.Status().ReadOnly {
		t.Fatal("an array with volumes of two copies is read-only without one device")
	}
	if s := r.a.Devices()[victim].State; s != "gone" {
		t.Errorf("the lost device is %s", s)
	}
	two = r.handle("two")
	r.expect("without a device", two, want["two"])
	r.expectPartly(r.handle("one"), want["one"])
	for range 100 {
		change(two, want["two"])
	}
	if err := two.Flush(); err != nil {
		t.Fatal(err)
	}
	r.collect()
	r.expect("collected without a device", two, want["two"])
	r.opts.Degraded = false // it is no member any more
	r.crash(rng)
	two = r.handle("two")
	r.expect("after a loss of power", two, want["two"])
	r.reopen()
	r.expect("closed and opened", r.handle("two"), want["two"])
	if err := r.a.Close(); err != nil {
		t.Fatal(err)
	}
	o := r.opts
	o.Devices, o.FS, o.Meta = r.devices(), r.fs, "meta"
	report, err := Check(context.Background(), o, nil)
	if err != nil || len(report.Problems) == 0 {
		t.Errorf("a check finds nothing of what is lost: %+v, %v", report, err)
	}
	for _, p := range report.Problems {
		if p.Kind != "data" || !strings.Contains(p.What, "went with the device") {
			t.Errorf("a check finds %v", p)
		}
	}
	r.away[victim] = false
	for _, degraded := range []bool{false, true} {
		r.opts.Degraded = degraded
		if err := r.tryOpen(); !errors.Is(err, ErrStaleDevice) {
			t.Fatalf("the device came back: %v", err)
		}
	}
	r.away[victim] = true
	r.open()
}

// expectPartly: each block is right, or an error that says why.
func (r *rig) expectPartly(h *Handle, want []byte) {
	r.t.Helper()
	lost := 0
	p := make([]byte, format.BlockSize)
	for off := 0; off < len(want); off += len(p) {
		switch err := h.ReadAt(p, int64(off)); {
		case errors.Is(err, ErrMissingDevice):
			lost++
		case err != nil:
			r.t.Fatal(err)
		}
	}
	// A readable block may be an older version, where the log lacks the newer.
	r.t.Logf("%d of %d blocks are lost", lost, len(want)/len(p))
	if lost == len(want)/len(p) {
		r.t.Error("every block is lost")
	}
}

// TestDiesWhileGoingOn: the process dies at any instant of the first opening
// without a device.
func TestDiesWhileGoingOn(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for after := int64(1); after < 60; after += underRace * (1 + rng.Int64N(3)) {
		r, h, data, _ := newPair(t, 3)
		one := func() { // on the device that goes: a gap in the log
			fill(data[:32<<10], rng)
			if err := write(h, 0, data[:32<<10]); err != nil {
				t.Fatal(err)
			}
		}
		one()
		if err := h.Flush(); err != nil {
			t.Fatal(err)
		}
		one()
		r.away[2] = true
		r.dieAfter(rng, after)
		r.expect(fmt.Sprint("died after ", after), r.handle("v"), data)
		r.away[2] = false
		r.a.Close()
		if err := r.tryOpen(); !errors.Is(err, ErrStaleDevice) {
			t.Fatalf("died after %d: the device came back: %v", after, err)
		}
		r.a = nil
	}
}

// TestLostDeviceKnewMost: the device that is lost was the last that took note of
// a checkpoint, and comes back after the first opening without it was cut short.
func TestLostDeviceKnewMost(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 5))
	for after := int64(1); after < 40; after += underRace {
		r, h, data, _ := newPair(t, 3)
		const victim = 0
		for r.newest() != victim {
			fill(data[:32<<10], rng)
			if err := write(h, 0, data[:32<<10]); err != nil {
				t.Fatal(err)
			}
			if err := r.a.Checkpoint(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		fill(data[:64<<10], rng)
		if err := write(h, 0, data[:64<<10]); err != nil {
			t.Fatal(err)
		}
		r.away[victim] = true
		died := r.dieDuringOpen(rng, after)
		r.away[victim] = false
		r.a.Close()
		r.opts.Degraded = false
		switch err := r.tryOpen(); {
		case errors.Is(err, ErrStaleDevice):
			r.a = nil
		case err != nil:
			t.Fatalf("died after %d: %v", after, err)
		case !died:
			t.Fatalf("did not die within %d, and the device came back", after)
		default: // it was not given up yet
			r.expect(fmt.Sprint("died after ", after), r.handle("v"), data)
		}
	}
}

// newest is the device whose superblock was written last.
func (r *rig) newest() int {
	r.t.Helper()
	best, slot := uint64(0), 0
	for i, m := range r.mems {
		if s, err := readSuperblock(m); err != nil {
			r.t.Fatal(err)
		} else if s.Sequence > best {
			best, slot = s.Sequence, i
		}
	}
	return slot
}

// dieAfter opens what a kill -9 now leaves, degraded, kills that after so many
// operations of the devices, if it takes as many, and opens what that leaves.
func (r *rig) dieAfter(rng *rand.Rand, after int64) {
	r.t.Helper()
	if r.dieDuringOpen(rng, after) {
		r.open()
	}
}

// dieDuringOpen is dieAfter without the last opening. It says whether it died.
func (r *rig) dieDuringOpen(rng *rand.Rand, after int64) bool {
	r.t.Helper()
	old := r.a
	fs := func() (c *vfs.MemFS) {
		r.mems = blockdev.KillAll(rng, r.mems, func() { c = r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}) })
		return c
	}
	r.fs = fs()
	old.Close()
	var mu sync.Mutex
	n := int64(0)
	var dead []*blockdev.Mem
	var deadFS *vfs.MemFS
	for _, m := range r.mems {
		m.OnOp = func(op blockdev.Op) error {
			if op.Kind == blockdev.OpRead {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if n++; n == after {
				dead = blockdev.KillAll(rng, r.mems, func() { deadFS = r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}) })
			}
			return nil
		}
	}
	r.opts.Degraded = true
	r.open()
	mu.Lock()
	n = after // it died by now or never does
	died := dead != nil
	mu.Unlock()
	if died {
		r.a.Close()
		r.mems, r.fs = dead, deadFS
	}
	return died
}
