package lsa

import (
	"errors"
	"fmt"

	"lsad/lsa/format"
)

// keepTail remembers, for each device, the records that count and were not
// known to be durable: their durability is for settleTail to make sure of.
func (a *Array) keepTail(found *scanned, durable uint64) {
	for _, r := range found.accepted {
		if r.h.LastLSN() <= durable {
			continue
		}
		var other *device
		if r.second != nil {
			other = a.devs()[r.second.h.Device]
			other.tail = append(other.tail, r.second.ref(a.devs()[r.h.Device]))
		}
		d := a.devs()[r.h.Device]
		d.tail = append(d.tail, r.ref(other))
	}
}

// ref refers to the record; other has another copy of it, nil if none has.
func (r *scannedRecord) ref(other *device) recordRef {
	return recordRef{seg: r.h.Segment, sector: r.h.Sector, sectors: r.h.TotalSectors(), other: other}
}

// settleTail makes the recovered tail of the log durable, or has those records
// saved elsewhere that lie on a device out of service or that fails now.
func (a *Array) settleTail() error {
	for _, d := range a.devs() {
		if d == nil {
			continue
		}
		if d.writable.Load() && !planted(ruleSyncAfterRecovery) {
			err := errors.Join(a.rewriteTail(d), a.wipeDropped(d))
			if err == nil {
				err = d.syncOnce()
			}
			if err != nil {
				a.takeOutOfService(d, fmt.Errorf("sync device %s: %w", d.dev.Name(), err))
			}
		}
		if !d.writable.Load() {
			for _, r := range d.tail {
				d.noteAppended(r)
			}
		}
		d.tail = nil
	}
	a.rescueAll()
	return a.syncForCut(a.committed.Load()) // a checkpoint follows
}

// rewriteTail writes what is there once more, if the kernel that the array ran on
// still does. A sync may have failed just before the process died, without a
// trace: the kernel then calls pages clean that it could not write, and says
// so once only. The next sync would not touch them.
func (a *Array) rewriteTail(d *device) error {
	if a.recovery.Clean || a.super.boot != a.opts.BootID || planted(ruleRewriteTail) {
		return nil
	}
	for _, r := range d.tail {
		buf := make([]byte, int(r.sectors)*format.SectorSize)
		at := d.offset(r.seg, r.sector)
		if err := d.dev.ReadAt(buf, at); err != nil {
			return fmt.Errorf("read back device %s segment %d: %w", d.dev.Name(), r.seg, err)
		}
		if err := d.dev.WriteVec([][]byte{buf}, at); err != nil {
			return fmt.Errorf("write device %s segment %d again: %w", d.dev.Name(), r.seg, err)
		}
	}
	return nil
}
