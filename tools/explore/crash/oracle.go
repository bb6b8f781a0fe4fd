package crash

import (
	"fmt"
	"math"

	"lsad/internal/blockdev"
	"lsad/lsa"
)

const never = math.MaxInt64

// observation is what a state turned out to hold: where the next life begins.
type observation struct {
	catalog *catalog
	tags    map[*volume][]tag
	snaps   map[*snapshot][]tag
}

// same says how another observation differs. mayFade: blocks with one copy may have become unreadable.
func (o *observation) same(x *observation, mayFade bool) error {
	for name, v := range o.catalog.volumes {
		w, ok := x.catalog.volumes[name]
		if !ok || len(w.snaps) != len(v.snaps) || w.blocks != v.blocks {
			return fmt.Errorf("volume %s has changed", name)
		}
		fade := mayFade && v.vol.copies == 1
		if i := differs(o.tags[v.vol], x.tags[w.vol], fade); i >= 0 {
			return fmt.Errorf("volume %s, cell %d: write %d became %d", name, i, o.tags[v.vol][i], x.tags[w.vol][i])
		}
		for n, s := range v.snaps {
			if i := differs(o.snaps[s], x.snaps[w.snaps[n]], fade); i >= 0 {
				return fmt.Errorf("snapshot %s@%s has changed in cell %d", name, s.name, i)
			}
		}
	}
	return nil
}

func differs(a, b []tag, fade bool) int {
	for i := range a {
		if a[i] != b[i] && !(fade && b[i] == unreadable) {
			return i
		}
	}
	return -1
}

// oracle decides whether a state is one that the promises allow.
//
// The array orders all changes. A crash leaves a prefix of that order, which
// must contain all that was durable. The oracle does not know the order, only
// that a change which was acknowledged before another was asked for comes
// first. So for each cell it finds which version is there: the change that
// made it is included, the next one is not. That is a prefix of some legal
// order if no change that is left out was acknowledged before one that is
// included was asked for. bound is the latest moment at which an included
// change was asked for; something durable counts as included too.
type oracle struct {
	r     *Run
	at    *instant
	bound int64
	why   string // what set bound
	// durable is bound without what turned out to be included. Only what is
	// durable counts for the voiding of a write that failed: the write and its
	// void have one LSN, and as long as neither is synced a crash may keep either.
	durable int64
	// settled is a moment before which all that was acknowledged was in the map
	// of a durable checkpoint. Where a device is lost, the log behind it has gaps:
	// a volume with one copy may have blocks as they were at any time since.
	settled int64
	all     []sighting
	seen    *observation
}

// check compares an open array with what the model says of the instant. The
// workload must not be running.
func (r *Run) check(a *lsa.Array, at *instant) (*observation, error) {
	o := &oracle{r: r, at: at, seen: &observation{tags: map[*volume][]tag{}, snaps: map[*snapshot][]tag{}}}
	o.bound, o.why = r.durableAt(at)
	o.durable, o.settled = o.bound, r.settledAt(at)
	if err := o.checkCatalog(a); err != nil {
		return nil, err
	}
	if err := r.checkRemembered(a, at); err != nil {
		return nil, err
	}
	for name, v := range o.seen.catalog.volumes {
		if err := o.look(a, name, v.vol, v.blocks); err != nil {
			return nil, err
		}
		for _, s := range v.snaps {
			if err := o.checkSnapshot(a, name, s); err != nil {
				return nil, err
			}
		}
	}
	if err := o.checkPrefix(o.all, &o.bound, &o.why); err != nil {
		return nil, err
	}
	if err := a.VerifyBooks(); err != nil {
		return nil, err
	}
	return o.seen, nil
}

// checkRemembered: a device that failed is out of service for good once a flush
// has succeeded after that which had something to make durable.
func (r *Run) checkRemembered(a *lsa.Array, at *instant) error {
	f := r.failed
	if f == nil || f.first == 0 || f.kind != blockdev.OpSync || at.damaged {
		return nil
	}
	for _, flush := range r.flushes {
		if flush.inv > f.first && flush.ack != 0 && flush.ack < at.when && r.wroteBetween(f.first, flush.inv) && a.Devices()[f.slot].State == "in service" {
			return fmt.Errorf("device %d failed at %d, everything was flushed after that, at %d, and it is in service", f.slot, f.first, flush.ack)
		}
	}
	return nil
}

// checkCatalog finds the administrative change that was the last.
func (o *oracle) checkCatalog(a *lsa.Array) error {
	all := o.r.catalogs
	first, last := 0, 0
	for i, c := range all {
		if c.op == nil {
			continue
		}
		if c.op.inv < o.at.when {
			last = i
		}
		if c.op.ack != 0 && c.op.ack < o.at.when && (!o.at.damaged || c.op.ack < o.bound) {
			first = i // it returned, so it was durable
		}
	}
	infos := a.Volumes()
	var why error
	for i := first; i <= last; i++ {
		if why = sameCatalog(all[i], infos); why == nil {
			o.seen.catalog = all[i]
			if c := all[i]; c.op != nil && i > first && o.at.lost < 0 && o.bound < c.op.inv && sameCatalog(all[first], infos) != nil {
				o.bound, o.why = c.op.inv, "included: "+c.op.kind
			}
			return nil
		}
	}
	return fmt.Errorf("catalogue is none of %d to %d: %w", first, last, why)
}

func sameCatalog(c *catalog, infos []lsa.VolumeInfo) error {
	if len(infos) != len(c.volumes) {
		return fmt.Errorf("%d volumes, want %d", len(infos), len(c.volumes))
	}
	for _, i := range infos {
		v, ok := c.volumes[i.Name]
		if !ok {
			return fmt.Errorf("volume %s is there", i.Name)
		}
		if i.Size != volumeBytes(v.blocks) || i.Origin != v.origin || len(i.Snapshots) != len(v.snaps) {
			return fmt.Errorf("volume %s has %d blocks, %d snapshots, origin %q; want %d, %d, %q",
				i.Name, i.Size/blockSize, len(i.Snapshots), i.Origin, v.blocks, len(v.snaps), v.origin)
		}
		for j, s := range i.Snapshots {
			if want := v.snaps[j]; s.Name != want.name || s.Size != volumeBytes(want.blocks) {
				return fmt.Errorf("snapshot %s@%s of %d blocks, want %s of %d", i.Name, s.Name, s.Size/blockSize, want.name, want.blocks)
			}
		}
	}
	return nil
}

// look finds the version of each cell of a volume.
func (o *oracle) look(a *lsa.Array, name string, v *volume, blocks int) error {
	tags, err := readTags(a, name, blocks, o.at.mayFail(v))
	if err != nil {
		return err
	}
	o.seen.tags[v] = tags
	begin := len(o.all)
	for i, t := range tags {
		if o.all, err = o.sight(o.all, v, i, t); err != nil {
			return err
		}
	}
	return noneTorn(name, o.all[begin:])
}

// sight appends the cell with the versions it may be.
func (o *oracle) sight(all []sighting, v *volume, cell int, t tag) ([]sighting, error) {
	s := sighting{vol: v, cell: cell, seen: t, chosen: -1, only: true, versions: noVersions}
	if cell < len(v.cells) {
		s.versions = v.cells[cell]
	}
	for i := range s.versions {
		if version := &s.versions[i]; version.op != nil && version.op.inv >= o.at.when {
			s.versions = s.versions[:i]
			break
		} else if version.tag != t && t != unreadable {
			continue
		}
		if s.chosen >= 0 {
			s.only = false
		} else {
			s.chosen = i
		}
	}
	if s.chosen < 0 && t != unreadable && o.at.lost >= 0 && v.clone && v.copies == 1 {
		s.chosen, s.only, s.seen = 0, false, unreadable // the snapshot's log may have gaps
	}
	if s.chosen < 0 {
		return all, fmt.Errorf("volume %s block %d cell %d: holds write %d, which never was there:%s", v.name, cell/cellsPerBlock, cell, t, s.history())
	}
	return append(all, s), nil
}

var noVersions = []version{{}}

// noneTorn: of one write, all cells of a block are there or none.
func noneTorn(name string, cells []sighting) error {
	for b := 0; b < len(cells); b += cellsPerBlock {
		block := cells[b : b+cellsPerBlock]
		for i := range block {
			s := &block[i]
			next := s.chosen + 1
			if !s.only || next == len(s.versions) || s.versions[next].tag == 0 || s.versions[next].op.kind != "write" {
				continue
			}
			for _, other := range block {
				if other.seen == s.versions[next].tag {
					return fmt.Errorf("%s: block %d is torn: cell %d holds write %d, cell %d only what came before: %s",
						name, b/cellsPerBlock, other.cell, other.seen, s.cell, s.history())
				}
			}
		}
	}
	return nil
}

// checkPrefix finds versions that make a prefix, where cells leave a choice:
// the earliest that is not ruled out. bound grows as they are included.
func (o *oracle) checkPrefix(cells []sighting, bound *int64, why *string) error {
	for changed := true; changed; {
		changed = false
		for i := range cells {
			s := &cells[i]
			for {
				ack, lost := s.excluded(o.at.when, o.durable)
				if ack > *bound || o.gaps(s.vol) && ack > o.settled {
					break
				}
				if !s.next() {
					return fmt.Errorf("volume %s block %d cell %d: holds write %d and lacks the %s of %d-%d, but everything acknowledged before %d must be there (%s):%s",
						s.vol.name, s.cell/cellsPerBlock, s.cell, s.seen, lost.kind, lost.inv, lost.ack, *bound, *why, s.history())
				}
			}
			// Of what is not durable, a log with gaps may lack any.
			if at := s.included(); at > *bound && o.at.lost < 0 {
				*bound, changed = at, true
				*why = fmt.Sprintf("included: write %d in block %d of %s", s.seen, s.cell/cellsPerBlock, s.vol.name)
			}
		}
	}
	return nil
}

// gaps: changes of the volume may be missing from among others.
func (o *oracle) gaps(v *volume) bool { return o.at.lost >= 0 && v.copies == 1 }
