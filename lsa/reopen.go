package lsa

import (
	"fmt"

	"lsad/lsa/format"
)

// reopenBlocks: a segment with less room than that is not opened again.
const reopenBlocks = 4

// What a crash or a stop left open is appended to again. Were it sealed, each
// start would cost a segment of each class, and a nearly full array that
// crashes often enough would have none left to collect into.

// chooseReopened keeps those segments open, of those that were, which have the
// most room of their class, and seals the others. What was dropped of the log
// and lies in their room must be wiped: it would be taken for records where an
// append behind it fails.
func (a *Array) chooseReopened(d *device, wereOpen []uint32, found *scanned) {
	var best [MaxClasses]*segment
	var room [MaxClasses]uint32
	for _, i := range wereOpen {
		s := &d.segs[i]
		class := s.class.Load()
		rest := d.segSectors() - min(s.used, d.segSectors())
		if rest >= reopenBlocks*format.BlockSectors && rest > room[class] && s.generation > 0 && !s.damaged && !a.readOnly && d.takesWrites() {
			best[class], room[class] = s, rest
		}
	}
	for _, s := range best {
		if s != nil {
			s.state = segOpen
		}
	}
	for _, r := range found.records {
		if r.h.Device != uint16(d.slot) { // which may have segments that d has not
			continue
		}
		if s := &d.segs[r.h.Segment]; s.state == segOpen && r.h.Sector >= s.used {
			d.dropped = append(d.dropped, r.ref(nil))
		}
	}
}

// wipeDropped overwrites the headers of what was dropped in reopened segments.
func (a *Array) wipeDropped(d *device) error {
	if planted(ruleRaiseEpoch) {
		return nil
	}
	var zeros [format.SectorSize]byte
	for _, r := range d.dropped {
		if err := d.dev.WriteVec([][]byte{zeros[:]}, d.offset(r.seg, r.sector)); err != nil {
			return fmt.Errorf("wipe what was dropped of device %s segment %d: %w", d.dev.Name(), r.seg, err)
		}
	}
	d.dropped = nil
	return nil
}

// reopen has the streams go on where recovery left them. Nothing was appended
// so far but what had to be saved, and not there.
//
// The room below that a segment was given may be gone after a loss of power.
func (a *Array) reopen() {
	for _, d := range a.devs() {
		if d == nil {
			continue
		}
		for i := range d.segs {
			s := &d.segs[i]
			if s.state != segOpen || d.isStream(uint32(i)) {
				continue
			}
			var err error
			if d.takesWrites() {
				err = d.dev.Allocate(d.offset(uint32(i), 0), d.segBytes)
			}
			a.append.mu.Lock()
			if t := &d.streams[s.class.Load()]; s.state == segOpen && !d.isStream(uint32(i)) {
				if err != nil || t.open || !d.takesWrites() {
					d.setState(uint32(i), segSealed)
				} else {
					*t = stream{open: true, seg: uint32(i), next: s.used}
					s.allocated = true
				}
			}
			a.append.mu.Unlock()
		}
	}
}

// isStream says whether a stream appends to the segment. append.mu is held.
func (d *device) isStream(seg uint32) bool {
	for i := range d.streams {
		if s := &d.streams[i]; s.open && s.seg == seg {
			return true
		}
	}
	return false
}
