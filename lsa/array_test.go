package lsa

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
)

// TestModel runs random operations on an array and on plain slices of bytes,
// kills, crashes (after a flush) and reopens it, and compares.
func TestModel(t *testing.T) {
	seeds, steps := uint64(4), 100
	switch {
	case os.Getenv("LSAD_SOAK") != "":
		seeds, steps = 20, 400
	case os.Getenv("LSAD_TEST") == "full":
		steps = 300
	}
	for seed := uint64(1); seed <= seeds; seed += underRace {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { runModel(t, seed, steps, 1+int(seed%4), 1) })
		t.Run(fmt.Sprint("two copies, seed", seed), func(t *testing.T) { runModel(t, seed, steps, 2+int(seed%3), 2) })
	}
}

const modelSize = 6 << 20

type model struct {
	*rig
	rng     *rand.Rand
	volumes map[string][]byte            // contents
	snaps   map[string]map[string][]byte // by volume
	handles map[string]*Handle
	next    int
}

func runModel(t *testing.T, seed uint64, steps, devices, copies int) {
	rng := rand.New(rand.NewPCG(seed, 7))
	m := &model{rig: newRig(t, devices, 96*copies/devices), rng: rng,
		volumes: map[string][]byte{}, snaps: map[string]map[string][]byte{}, handles: map[string]*Handle{}}
	m.copies = copies
	m.addVolume("v0", make([]byte, modelSize), true)
	for i := range steps {
		what := m.step()
		if i%20 == 0 || i == steps-1 {
			m.verify(fmt.Sprintf("step %d, %s", i, what))
		}
	}
	m.checkBooks()
}

func (m *model) addVolume(name string, data []byte, create bool) {
	if create {
		m.handles[name] = m.volume(name, int64(len(data)))
	} else {
		m.handles[name] = m.handle(name)
	}
	m.volumes[name], m.snaps[name] = data, map[string][]byte{}
}

func (m *model) pick() string {
	var names []string
	for i := range m.next + 1 {
		if n := fmt.Sprint("v", i); m.volumes[n] != nil {
			names = append(names, n)
		}
	}
	return names[m.rng.IntN(len(names))]
}

func (m *model) pickSnap(v string) string {
	for i := range 100 {
		n := fmt.Sprint("s", (i+m.rng.IntN(50))%100)
		if m.snaps[v][n] != nil {
			return n
		}
	}
	return ""
}

func (m *model) step() string {
	ctx := context.Background()
	name := m.pick()
	data, h := m.volumes[name], m.handles[name]
	off := m.rng.IntN(len(data))
	n := 1 + m.rng.IntN(min(len(data)-off, 200<<10))
	if m.rng.IntN(3) > 0 {
		off, n = off&^4095, (n+4095)&^4095
		n = min(n, len(data)-off)
	}
	must := func(err error) {
		m.t.Helper()
		if err != nil {
			m.t.Fatal(err)
		}
	}
	switch k := m.rng.IntN(100); {
	case k < 50:
		var offs []int64
		var bufs [][]byte
		for range 1 + m.rng.IntN(6) {
			o := m.rng.IntN(len(data)/4096-8) * 4096
			p := make([]byte, (1+m.rng.IntN(8))*4096)
			if m.rng.IntN(5) == 0 {
				p = p[:1+m.rng.IntN(len(p)-1)]
				o += m.rng.IntN(4096)
			}
			fill(p, m.rng)
			offs, bufs = append(offs, int64(o)), append(bufs, p)
			copy(data[o:], p)
		}
		errs := make([]error, len(offs))
		h.WriteBatch(offs, bufs, errs)
		for _, err := range errs {
			must(err)
		}
		return "write"
	case k < 58:
		p := make([]byte, n)
		fill(p, m.rng)
		copy(data[off:], p)
		must(write(h, int64(off), p))
		return "large write"
	case k < 66:
		must(h.Trim(int64(off), int64(n)))
		from, to := (off+4095)&^4095, (off+n)&^4095
		if from < to {
			clear(data[from:to])
		}
		return "trim"
	case k < 72:
		must(h.WriteZeroes(int64(off), int64(n), k&1 == 0))
		clear(data[off : off+n])
		return "zeroes"
	case k < 78:
		s := fmt.Sprint("s", m.rng.IntN(100))
		if m.snaps[name][s] == nil {
			must(m.a.Snapshot(ctx, name, s))
			m.snaps[name][s] = bytes.Clone(data)
		}
		return "snapshot"
	case k < 82:
		if s := m.pickSnap(name); s != "" {
			must(m.a.DeleteVolume(ctx, name+"@"+s))
			delete(m.snaps[name], s)
		}
		return "delete snapshot"
	case k < 84:
		if s := m.pickSnap(name); s != "" && len(m.volumes) < 4 {
			m.next++
			clone := fmt.Sprint("v", m.next)
			must(m.a.Clone(ctx, name, s, clone))
			m.addVolume(clone, bytes.Clone(m.snaps[name][s]), false)
		}
		return "clone"
	case k < 86:
		if s := m.pickSnap(name); s != "" {
			must(h.Close())
			must(m.a.Revert(ctx, name, s))
			m.volumes[name] = bytes.Clone(m.snaps[name][s])
			m.handles[name] = m.handle(name)
		}
		return "revert"
	case k < 87:
		if len(m.volumes) > 1 {
			must(h.Close())
			must(m.a.DeleteVolume(ctx, name))
			delete(m.volumes, name)
			delete(m.snaps, name)
		}
		return "delete"
	case k < 91:
		must(h.Flush())
		return "flush"
	case k < 94:
		must(m.a.Checkpoint(ctx))
		return "checkpoint"
	case k < 96:
		m.collect()
		return "collect"
	case k < 97:
		m.reopen()
	case k < 98:
		must(h.Flush())
		m.crash(m.rng)
	default:
		m.kill(m.rng)
	}
	for v := range m.volumes {
		m.handles[v] = m.handle(v)
	}
	return "restart"
}

func fill(p []byte, rng *rand.Rand) {
	x := rng.Uint64() | 1
	for i := range p {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		p[i] = byte(x)
	}
}

func (m *model) verify(when string) {
	m.t.Helper()
	if err := m.a.VerifyBooks(); err != nil {
		m.t.Fatalf("%s: %v", when, err)
	}
	for name, want := range m.volumes {
		m.compare(when, name, m.handles[name], want)
		for s, want := range m.snaps[name] {
			h := m.handle(name + "@" + s)
			m.compare(when, name+"@"+s, h, want)
			h.Close()
		}
	}
}

func (m *model) compare(when, name string, h *Handle, want []byte) {
	m.t.Helper()
	if h.Size() != int64(len(want)) {
		m.t.Fatalf("%s: %s has size %d, want %d", when, name, h.Size(), len(want))
	}
	got := make([]byte, len(want))
	if err := h.ReadAt(got, 0); err != nil {
		m.t.Fatalf("%s: %s: %v", when, name, err)
	}
	for b := 0; b < len(want); b += 4096 {
		if !bytes.Equal(got[b:b+4096], want[b:b+4096]) {
			m.t.Fatalf("%s: %s differs at block %d", when, name, b/4096)
		}
	}
	m.compareExtents(when, name, h, want)
}

// compareExtents: what is said to be zero is, and the extents cover all.
func (m *model) compareExtents(when, name string, h *Handle, want []byte) {
	m.t.Helper()
	at := int64(0)
	err := h.Extents(0, int64(len(want)), func(n int64, hole, zero bool) bool {
		if hole && !zero || n <= 0 {
			m.t.Fatalf("%s: %s: extent of %d, hole %v, zero %v", when, name, n, hole, zero)
		}
		if zero && !bytes.Equal(want[at:at+n], make([]byte, n)) {
			m.t.Fatalf("%s: %s: data at %d+%d reported as zero", when, name, at, n)
		}
		at += n
		return true
	})
	if err != nil || at != int64(len(want)) {
		m.t.Fatalf("%s: %s: extents cover %d of %d: %v", when, name, at, len(want), err)
	}
}

// checkBooks deletes everything and sees that nothing is left in use.
func (m *model) checkBooks() {
	m.t.Helper()
	ctx := context.Background()
	for name := range m.volumes {
		m.handles[name].Close()
		for s := range m.snaps[name] {
			if err := m.a.DeleteVolume(ctx, name+"@"+s); err != nil {
				m.t.Fatal(err)
			}
			m.settle()
			m.compare("deleting "+s, name, m.handle(name), m.volumes[name])
			m.a.catalog.volumes[name].handles = map[*Handle]bool{}
		}
		if err := m.a.DeleteVolume(ctx, name); err != nil {
			m.t.Fatal(err)
		}
	}
	m.settle()
	if used := m.a.used.Load(); used != 0 {
		m.t.Fatalf("%d blocks in use after deleting everything", used)
	}
	if err := m.a.Checkpoint(ctx); err != nil {
		m.t.Fatal(err)
	}
	for _, d := range m.a.Devices() {
		if d.LiveBytes != 0 {
			m.t.Fatalf("device %d has %d live bytes after deleting everything", d.Slot, d.LiveBytes)
		}
	}
}

func (m *model) settle() {
	m.t.Helper()
	if err := m.a.tidyLayers(); err != nil {
		m.t.Fatal(err)
	}
}
