package blockdev

import "slices"

// entry is one write, discard or allocation that completed and that no Sync
// made durable yet, as the way back: what each of its sectors was before.
// Entries are never changed once made, so that clones share them.
type entry struct {
	seq     uint64 // order of completion
	changes []change
	// tainted: a Sync that should have covered this entry failed. The kernel
	// then calls the pages clean without having written them, so no later
	// Sync makes them durable; only writing the same sectors again does.
	tainted bool
}

// change is what an entry did to one page.
type change struct {
	page    int64
	sectors sectorMask // a run of sectors, or what a later write left of one
	// was is the page before, if the entry put another in its place; nil
	// says that it had none.
	was      *pageData
	replaced bool
	// old holds the bytes before of the sectors from first on, if the page
	// was changed in place.
	old   []byte
	first int
}

// bytesBefore are the bytes that sector s had before the change.
func (c *change) bytesBefore(s int) []byte {
	switch {
	case !c.replaced:
		at := (s - c.first) * SectorSize
		return c.old[at : at+SectorSize]
	case c.was == nil:
		return reservedPage[:SectorSize]
	default:
		return c.was[s*SectorSize : (s+1)*SectorSize]
	}
}

// unsynced is the list of entries, oldest first.
type unsynced struct {
	entries []*entry
	nextSeq uint64
}

func (u *unsynced) add(changes []change) {
	u.entries = append(u.entries, &entry{seq: u.nextSeq, changes: changes})
	u.nextSeq++
}

// clone shares the entries; what either side appends later stays its own.
func (u *unsynced) clone() unsynced {
	return unsynced{entries: slices.Clip(u.entries), nextSeq: u.nextSeq}
}

// settle forgets what was completed before mark: a Sync issued then has
// succeeded. Tainted entries stay, without the sectors written again since.
func (u *unsynced) settle(mark uint64) {
	end := 0
	for end < len(u.entries) && u.entries[end].seq < mark {
		end++
	}
	kept := u.unsettled(u.entries[:end])
	u.entries = append(kept, u.entries[end:]...)
}

// unsettled returns what a successful Sync leaves of the entries that it covers.
func (u *unsynced) unsettled(covered []*entry) []*entry {
	if !slices.ContainsFunc(covered, func(e *entry) bool { return e.tainted }) {
		return nil
	}
	var kept []*entry
	rewritten := make(map[int64]sectorMask)
	for _, e := range slices.Backward(covered) {
		if e.tainted {
			if e = e.without(rewritten); len(e.changes) > 0 {
				kept = append(kept, e)
			}
			continue
		}
		for i := range e.changes {
			rewritten[e.changes[i].page] |= e.changes[i].sectors
		}
	}
	slices.Reverse(kept)
	return kept
}

// without returns the entry less the given sectors.
func (e *entry) without(gone map[int64]sectorMask) *entry {
	left := &entry{seq: e.seq, tainted: e.tainted}
	for _, c := range e.changes {
		if c.sectors &^= gone[c.page]; c.sectors != 0 {
			left.changes = append(left.changes, c)
		}
	}
	return left
}

// taint marks what was completed before mark: a Sync issued then has failed.
func (u *unsynced) taint(mark uint64) {
	u.entries = slices.Clone(u.entries)
	for i, e := range u.entries {
		if e.seq < mark {
			u.entries[i] = &entry{seq: e.seq, changes: e.changes, tainted: true}
		}
	}
}
