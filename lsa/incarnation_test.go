package lsa

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"lsad/lsa/format"
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

// servedAt is what somebody remembers to have served.
type servedAt uint64

func (s servedAt) Last(format.UUID) uint64  { return uint64(s) }
func (s servedAt) Note(format.UUID, uint64) {}

// TestRestoredThenKilled: an array that was restored from a copy can be opened
// again however soon it dies, although its epoch is another one than that of its
// checkpoint plus one.
func TestRestoredThenKilled(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 7))
	for name, die := range map[string]func(*rig){
		"killed":     func(r *rig) { r.kill(rng) },
		"lost power": func(r *rig) { r.opts.BootID[0]++; r.crash(rng) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, 32)
			h := r.volume("v", 1<<20)
			data := bytes.Repeat([]byte{7}, 4096)
			mustWrite(t, h, 0, data)
			if err := r.a.Close(); err != nil {
				t.Fatal(err)
			}
			r.opts.Served = servedAt(50)
			if r.open(); !r.a.Recovery().Restored {
				t.Fatal("that the array is older than what was served was not noticed")
			}
			h = r.handle("v")
			mustWrite(t, h, 4096, data)
			if err := h.Flush(); err != nil {
				t.Fatal(err)
			}
			die(r)
			r.expect(name, r.handle("v"), append(data, data...))
		})
	}
}
