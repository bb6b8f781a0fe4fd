package lsa

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestOldStore: a metadata store that is put back from a copy is refused, even
// if the devices were not opened again since, however the array was left.
func TestOldStore(t *testing.T) {
	for name, end := range map[string]func(*rig){
		"closed":     func(r *rig) { _ = r.a.Close() },
		"killed":     func(r *rig) { r.kill(rand.New(rand.NewPCG(1, 1))); _ = r.a.dismiss() },
		"not served": func(r *rig) { _ = r.a.Checkpoint(t.Context()); r.a.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, 32)
			h := r.volume("v", 1<<20)
			mustWrite(t, h, 0, make([]byte, 64<<10))
			r.reopen()
			old := r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(2, 2))})
			h = r.handle("v")
			mustWrite(t, h, 0, make([]byte, 128<<10))
			if err := r.a.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			end(r)
			newer := r.fs
			r.fs = old
			if err := r.tryOpen(); !errors.Is(err, ErrStaleDevice) {
				t.Fatalf("with an old store: %v", err)
			}
			if r.fs = newer; name == "not served" {
				return // that store is still open
			}
			r.open()
		})
	}
}

// TestOlderCopy: a device that was exchanged, while the array was closed, for a copy of itself which was made while it
// was open is refused; the device itself is not.
func TestOlderCopy(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	r := newRig(t, 3, 32)
	r.volume("v", 1<<20)
	for i := range r.mems {
		r.crash(rng) // which is no reason to refuse one
		h := r.handle("v")
		if err := write(h, 0, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		copied := r.mems[i].KillClone(rng)
		if err := write(h, 4096, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		r.a.Close()
		own := r.mems[i]
		r.mems[i] = copied
		if err := r.tryOpen(); !errors.Is(err, ErrStaleDevice) {
			t.Fatalf("a copy of device %d: %v", i, err)
		}
		r.mems[i] = own
		r.open()
		r.reopen()
	}
}
