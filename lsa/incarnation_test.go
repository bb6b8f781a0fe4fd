package lsa

import (
	"math/rand/v2"
	"testing"
)

// TestIncarnation holds when an array is another one to its clients: whenever acknowledged writes may be lost, and at
// no other time.
func TestIncarnation(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for _, c := range []struct {
		name     string
		copies   int
		readOnly bool // without a device
	}{{"one copy", 1, true}, {"two copies", 2, false}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 3, 60)
			r.copies = c.copies
			h := r.volume("v", 1<<20)
			was := r.a.Status().Incarnation
			step := func(what string, changes bool) {
				t.Helper()
				now := r.a.Status().Incarnation
				if (now != was) != changes || r.a.Recovery().MayHaveLost != changes {
					t.Errorf("%s: incarnation %x is %x, lost %v", what, was, now, r.a.Recovery().MayHaveLost)
				}
				was = now
				h = r.handle("v")
			}
			r.reopen()
			step("closed", false)
			if err := write(h, 0, make([]byte, 4096)); err != nil {
				t.Fatal(err)
			}
			r.kill(rng)
			step("killed", false)
			r.opts.BootID[0]++
			r.crash(rng)
			step("lost power", true)
			if err := write(h, 0, make([]byte, 4096)); err != nil {
				t.Fatal(err)
			}
			r.away[0], r.opts.Degraded = true, true
			r.kill(rng)
			step("killed, and a device is missing", true)
			if got := r.a.Status().ReadOnly; got != c.readOnly {
				t.Errorf("read-only %v", got)
			}
			r.reopen()
			step("opened again", c.readOnly) // where nothing could be written down it is another one again
		})
	}
}
