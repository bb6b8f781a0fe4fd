package blockdev

import (
	"math/rand/v2"
	"sync"
)

// allMems keeps two crashes of several devices from locking them crosswise.
var allMems sync.Mutex

// CrashClone returns a device that a power loss at this instant could have
// left. Everything that completed before the last successful Sync was issued
// is there. Of what came after, also of what is still under way, any part
// is, in sectors of 512 bytes, each as any of its versions: which part, the
// random source decides. All of the clone is durable, and it has no OnOp.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.crash(rng)
}

// CrashAll is CrashClone of several devices at one instant: it stops all of
// them, calls each function of meanwhile (to crash what is not a Mem at the
// same instant; it must not use the devices), and returns the clones.
func CrashAll(rng *rand.Rand, devices []*Mem, meanwhile ...func()) []*Mem {
	return together(devices, meanwhile, func(m *Mem) *Mem { return m.crash(rng) })
}

// KillClone returns what the next process finds if this one is killed now:
// everything that completed, and what is still under way whole, in part or not at
// all. As the kernel lives on, what was not synced still is not: a CrashClone of the
// clone can lose it. Sectors that a failed Sync left to chance are as they were
// last written.
func (m *Mem) KillClone(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kill(rng)
}

// KillAll is KillClone of several devices at one instant; see CrashAll.
func KillAll(rng *rand.Rand, devices []*Mem, meanwhile ...func()) []*Mem {
	return together(devices, meanwhile, func(m *Mem) *Mem { return m.kill(rng) })
}

func together(devices []*Mem, meanwhile []func(), clone func(*Mem) *Mem) []*Mem {
	allMems.Lock()
	defer allMems.Unlock()
	for _, m := range devices {
		m.mu.Lock()
		defer m.mu.Unlock()
	}
	for _, f := range meanwhile {
		f()
	}
	clones := make([]*Mem, len(devices))
	for i, m := range devices {
		clones[i] = clone(m)
	}
	return clones
}

// copyPages makes an open device with the same contents and an empty log.
func (m *Mem) copyPages() *Mem {
	return &Mem{name: m.name, size: m.size, durable: m.durable, pages: m.pages.clone(), limit: m.limit}
}

func (m *Mem) crash(rng *rand.Rand) *Mem {
	c := m.copyPages()
	n := len(m.unsynced.entries)
	fate := drawFate(rng, n+len(m.inFlight))
	c.undo(m.unsynced.entries, fate)
	for i, f := range m.inFlight {
		c.landPart(f, fate(n+i), false)
	}
	return c
}

func (m *Mem) kill(rng *rand.Rand) *Mem {
	c := m.copyPages()
	c.unsynced = m.unsynced.clone()
	fate := drawFate(rng, len(m.inFlight))
	for i, f := range m.inFlight {
		c.landPart(f, fate(i), !c.durable)
	}
	return c
}

// undo takes the sectors back that fate does not keep, newest entry first. A
// sector that an entry keeps is decided: it holds that entry's version, and
// whatever happens to older ones does not matter.
func (m *Mem) undo(entries []*entry, fate func(int) tear) {
	decided := make(map[int64]sectorMask)
	tainted := false
	for _, e := range entries {
		tainted = tainted || e.tainted
	}
	for i := len(entries) - 1; i >= 0; i-- {
		t := fate(i)
		for j := range entries[i].changes {
			c := &entries[i].changes[j]
			kept := t.keep(c.sectors)
			before := decided[c.page]
			decided[c.page] = before | kept
			lost := c.sectors &^ kept &^ before
			// The page before can come back whole if nothing else was done
			// to it that stays; tainted entries have gaps where that shows.
			if c.replaced && lost == c.sectors && before == 0 && !tainted {
				m.pages.set(c.page, c.was, false)
				continue
			}
			m.pages.restore(c, lost)
		}
	}
}

// restore gives the lost sectors the bytes from before the change.
func (t *pageTable) restore(c *change, lost sectorMask) {
	if lost == 0 || c.was == nil && c.replaced && t.get(c.page) == nil {
		return
	}
	p := t.writable(c.page)
	for ; lost != 0; lost &= lost - 1 {
		s := lost.first()
		copy(p[s*SectorSize:(s+1)*SectorSize], c.bytesBefore(s))
	}
}

// landPart carries out the sectors of a flight that the tear keeps.
func (m *Mem) landPart(f *flight, t tear, remember bool) {
	changes := f.applyPart(&m.pages, t, remember)
	if len(changes) > 0 {
		m.unsynced.add(changes)
	}
}

func (f *flight) applyPart(pages *pageTable, t tear, remember bool) []change {
	if t.whole {
		return f.apply(pages, remember)
	}
	var at int64
	var changes []change
	eachPage(f.off, f.n, func(page int64, from, to int) {
		kept := t.keep(sectorsOf(from, to))
		for ; kept != 0; kept &= kept - 1 {
			s := kept.first()
			lo, hi := max(from, s*SectorSize), min(to, (s+1)*SectorSize)
			part := flight{kind: f.kind, off: page*pageSize + int64(lo), n: int64(hi - lo)}
			if f.kind == OpWrite {
				part.bufs = sliceVec(f.bufs, at+int64(lo-from), part.n)
			}
			changes = append(changes, part.apply(pages, remember)...)
		}
		at += int64(to - from)
	})
	return changes
}

// sliceVec is bytes [off, off+n) of the buffers.
func sliceVec(bufs [][]byte, off, n int64) [][]byte {
	var out [][]byte
	for _, b := range bufs {
		if size := int64(len(b)); off >= size {
			off -= size
			continue
		}
		part := b[off:min(int64(len(b)), off+n)]
		out = append(out, part)
		if off, n = 0, n-int64(len(part)); n == 0 {
			break
		}
	}
	return out
}
