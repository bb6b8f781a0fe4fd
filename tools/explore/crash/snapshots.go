package crash

import (
	"fmt"

	"lsad/lsa"
)

// checkSnapshot: it is what the volume was at one moment between the request
// and its end, and that is as durable as the snapshot.
func (o *oracle) checkSnapshot(a *lsa.Array, volume string, s *snapshot) error {
	name := volume + "@" + s.name
	tags, err := readTags(a, name, s.blocks, o.at.mayFail(s.vol))
	if err != nil {
		return err
	}
	o.seen.snaps[s] = tags
	if s.op != nil && (o.gaps(s.vol) || o.at.lost >= 0 && o.at.power && (s.op.ack == 0 || s.op.ack >= o.at.when)) {
		for i, t := range tags {
			if _, err := o.sight(nil, s.vol, i, t); err != nil {
				return fmt.Errorf("snapshot %s: %w", name, err)
			}
		}
		return nil
	}
	// Before it was made a write may have failed and not been voided yet, as it was when the snapshot was read: as long as
	// neither is synced a crash may keep either.
	underWay := s.op != nil && (s.op.ack == 0 || s.op.ack >= o.at.when)
	if s.pinned != nil && !(underWay && o.at.faulted) {
		for i, t := range tags {
			if t != s.pinned[i] && t != unreadable { // which readTags refuses where it may not be
				return fmt.Errorf("snapshot %s block %d cell %d: holds write %d, held %d; %s", name, i/cellsPerBlock, i, t, s.pinned[i], s.made())
			}
		}
		return nil
	}
	return o.checkInstant(name, s, tags)
}

// made says when the snapshot was.
func (s *snapshot) made() string {
	if s.op == nil {
		return "it was there when the life began"
	}
	return fmt.Sprintf("made %d-%d", s.op.inv, s.op.ack)
}

func (o *oracle) checkInstant(name string, s *snapshot, tags []tag) error {
	cells := make([]sighting, 0, len(tags))
	included := map[*op]bool{}
	for i, t := range tags {
		var err error
		if cells, err = o.sight(cells, s.vol, i, t); err != nil {
			return fmt.Errorf("snapshot %s: %w", name, err)
		}
		c := &cells[i]
		if v := c.versions[c.chosen]; c.only && v.op != nil && v.op.kind == "write" && v.tag != 0 {
			included[v.op] = true
		}
	}
	for i := range cells {
		c := &cells[i]
		if next := c.chosen + 1; c.only && next < len(c.versions) {
			if v := c.versions[next]; included[v.op] && !v.op.failed {
				return fmt.Errorf("snapshot %s cuts write %d (%d-%d) in two at cell %d:%s", name, v.tag, v.op.inv, v.op.ack, c.cell, c.history())
			}
		}
	}
	bound, why := s.op.inv, "snapshot asked for"
	if err := o.checkPrefix(cells, &bound, &why); err != nil {
		return fmt.Errorf("snapshot %s: %w", name, err)
	}
	if s.op.ack != 0 && bound > s.op.ack {
		return fmt.Errorf("snapshot %s ended at %d and holds what was asked for at %d (%s)", name, s.op.ack, bound, why)
	}
	if bound > o.bound && bound != s.op.inv {
		o.bound, o.why = bound, "in snapshot "+name+": "+why
	}
	return nil
}
