package lsa

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// step is one part of recovery; it says what it found.
type step struct {
	name string
	run  func() (string, error)
}

// recover brings the array to the state of its last acknowledged change that
// survived, in named steps.
func (a *Array) recover(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { a.store.Hurry(0) })()
	return a.runSteps(ctx, append(a.readSteps(ctx), step{"make it durable and begin a new epoch", a.settle}))
}

// readSteps are those that find the state, in memory, and write nothing.
func (a *Array) readSteps(ctx context.Context) []step {
	var found *scanned
	return []step{
		{"read superblocks", a.adopt},
		{"open metadata store", a.openStore},
		{"scan the log behind the checkpoint", func() (detail string, err error) {
			found, detail, err = a.scan(ctx)
			return detail, err
		}},
		{"order the records and cut at the first gap", func() (string, error) { return a.orderAndCut(found) }},
		{"replay", func() (string, error) { return a.replay(found) }},
	}
}

func (a *Array) runSteps(ctx context.Context, steps []step) error {
	begin := time.Now()
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := time.Now()
		detail, err := s.run()
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		took := time.Since(at)
		a.recovery.Steps = append(a.recovery.Steps, RecoveryStep{s.name, detail, took})
		a.log.Info("recovery: "+s.name, "found", detail, "took", took.Round(time.Microsecond))
	}
	a.recovery.Took = time.Since(begin)
	return nil
}

// replay applies the records to the map and the catalogue, in order.
func (a *Array) replay(found *scanned) (string, error) {
	for _, r := range found.accepted {
		if err := a.replayRecord(r); err != nil {
			return "", fmt.Errorf("record %d on device %d segment %d sector %d: %w", r.h.FirstLSN, r.h.Device, r.h.Segment, r.h.Sector, err)
		}
	}
	a.recovery.Records = len(found.accepted)
	a.settleSegments(found)
	cut := a.recovery.CutLSN
	a.committed.Store(cut)
	a.append.nextLSN = cut + 1
	return fmt.Sprintf("%d records, up to LSN %d", len(found.accepted), cut), nil
}

func (a *Array) replayRecord(r *scannedRecord) error {
	if r.h.Flags&format.FlagVoid != 0 {
		return nil
	}
	lsn := r.h.FirstLSN
	data, second := r.data(), format.Place(0)
	if r.second != nil {
		second = r.second.data()
	}
	return format.DecodeEntries(r.header, &r.h, func(e *format.Entry) error {
		c := change{kind: e.Kind, layer: e.Layer, block: e.Block, count: e.Count, lsn: lsn, place: data, second: second, oldLSN: e.OldLSN, from: e.From}
		lsn++
		data = data.After(e.DataBlocks())
		if second != 0 {
			second = second.After(e.DataBlocks())
		}
		if e.Kind == format.EntryAdmin {
			var applied adminChange
			if err := json.Unmarshal(e.Payload, &applied); err != nil {
				return fmt.Errorf("%w: %w", format.ErrInvalid, err)
			}
			return a.applyAdmin(e.Payload)
		}
		for i := range e.DataBlocks() {
			c.crcs = append(c.crcs, e.CRC(i))
		}
		return a.replayChange(&c)
	})
}

// data is the place of the record's first block.
func (r *scannedRecord) data() format.Place {
	return format.MakePlace(uint8(r.h.Device), r.h.Segment, r.h.Sector+uint32(r.h.Sectors))
}

func (a *Array) replayChange(c *change) error {
	var pins []pinned
	defer func() { a.unpinAll(pins) }()
	if c.kind == format.EntryMove {
		pins = a.pinMerged(c.layer, c.block)
	} else {
		if planted(ruleTrimIsLogged) && c.kind == format.EntryTrim {
			return nil
		}
		if _, ok := a.blocks.Layers.Get(c.layer); !ok && a.degraded {
			return nil // the snapshot that made the layer was never durable, and is one of the gaps
		}
		if c.count > pagesPerBatch*blockmap.PageBlocks+blockmap.PageBlocks {
			return fmt.Errorf("%w: a change of %d blocks", format.ErrInvalid, c.count)
		}
		for pg := c.block / blockmap.PageBlocks; pg <= (c.block+c.count-1)/blockmap.PageBlocks; pg++ {
			if err := a.blocks.Pin(blockmap.Key{Layer: c.layer, Page: pg}); err != nil {
				return err
			}
			pins = append(pins, pinned{c.layer, pg})
		}
	}
	a.commit.mu.Lock()
	a.applyChange(c)
	a.commit.mu.Unlock()
	return nil
}

// settleSegments works out the state of each segment. What was ready and not
// opened is free, under a generation that no record of the dead tail can have;
// what was open is sealed or will be appended to again.
func (a *Array) settleSegments(found *scanned) {
	for _, d := range a.devs() {
		if d == nil {
			continue
		}
		var wereOpen []uint32
		for i := range d.segs {
			s := &d.segs[i]
			use := found.uses[segmentUse{d.slot, uint32(i)}]
			if s.state == segOpen || s.state == segReady && use != nil {
				wereOpen = append(wereOpen, uint32(i))
			}
			if use != nil {
				if s.state == segReady {
					s.firstLSN = use.firstLSN
				}
				s.state, s.generation = segSealed, use.generation
				s.used, s.maxLSN = max(s.used, use.used), max(min(s.maxLSN, a.recovery.CutLSN), use.maxLSN)
				s.dirty.Store(true)
			} else if s.state == segReady {
				s.state = segFree
				if !planted(ruleNewGeneration) && !planted(ruleRaiseEpoch) {
					s.generation++
				}
				s.dirty.Store(true)
			} else if s.state == segOpen {
				s.state, s.maxLSN = segSealed, min(s.maxLSN, a.recovery.CutLSN)
				s.dirty.Store(true)
			}
			if s.state == segSealed && s.maxLSN > a.recovery.CutLSN {
				s.maxLSN = a.recovery.CutLSN
				s.dirty.Store(true)
			}
			if s.state == segFree {
				s.stale = true
				d.free++
			}
		}
		a.chooseReopened(d, wereOpen, found)
	}
	a.updateLimit()
}

// settle makes what was recovered durable, then, before anybody is served,
// makes all that lies behind the cut dead by beginning a new epoch.
func (a *Array) settle() (string, error) {
	a.super.mu.Lock()
	a.recovery.Clean, a.super.clean = a.super.clean, false // nothing that is written from now on may say so
	a.super.mu.Unlock()
	if a.readOnly {
		a.renew()
		return "degraded: read-only, nothing is written", nil
	}
	if err := a.giveUpMissing(); err != nil {
		return "", err
	}
	if err := a.settleTail(); err != nil {
		return "", err
	}
	if err := a.Checkpoint(context.Background()); err != nil {
		return "", err
	}
	return a.raiseEpoch()
}

// renew gives the array another incarnation if writes that were acknowledged may be lost: those that were not
// flushed with a loss of power, those that a missing device alone had, and those since a copy was made that the array was
// restored from. Where nothing may be written it has that one until it is closed.
func (a *Array) renew() {
	s := &a.super
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := a.lastServed(); s.epoch < last {
		a.log.Error("the array is older than what was served here since this machine started: it was restored from a copy; who still has a volume of it connected will see errors",
			"epoch", s.epoch, "served", last)
		s.epoch = last // so that the next one is newer than both
		a.recovery.Restored = true
	}
	if a.recovery.Restored || !a.recovery.Clean && (a.degraded || s.boot != a.opts.BootID) {
		s.incarnation = randomUint64()
		a.recovery.MayHaveLost = true
	}
}

func (a *Array) lastServed() uint64 {
	if a.opts.Served == nil {
		return 0
	}
	return a.opts.Served.Last(a.super.array)
}

func (a *Array) raiseEpoch() (string, error) {
	a.renew()
	s := &a.super
	s.mu.Lock()
	if !planted(ruleRaiseEpoch) {
		s.epoch++
	}
	s.cut, s.served, s.boot = a.committed.Load(), false, a.opts.BootID
	s.incompat |= format.FeaturesIncompat
	for i := range s.rows {
		if s.rows[i].State == format.DeviceLost { // the checkpoint has what is left
			s.rows[i].State = format.DeviceGone
		}
	}
	s.mu.Unlock()
	// Twice: a device that still has the old epoch is stale only if another
	// says that all had the new one.
	if err := a.insistOnSuperblocks(); err != nil {
		return "", err
	}
	a.blocks.StoreWhole(false) // all devices say by now that deltas may follow
	s.mu.Lock()
	s.served = true
	s.mu.Unlock()
	if err := a.insistOnSuperblocks(); err != nil {
		return "", err
	}
	if a.opts.Served != nil {
		a.opts.Served.Note(s.array, s.epoch)
	}
	a.reopen()
	a.prepareSegments()
	return fmt.Sprintf("epoch %d begins behind LSN %d", s.epoch, s.cut), nil
}

// insistOnSuperblocks writes them without the devices that fail to take them:
// these go out of service, and the others remember it.
func (a *Array) insistOnSuperblocks() error {
	for {
		before := a.writableDevices()
		failed := a.noteFailed()
		err := a.writeSuperblocks()
		if err == nil {
			for _, d := range failed {
				d.remembered(format.DeviceReadOnly)
			}
			return nil
		}
		if a.writableDevices() == before || a.writableDevices() == 0 {
			return err
		}
	}
}

// noteFailed puts the devices that are out of service down as that, for the next
// superblocks, and returns them.
func (a *Array) noteFailed() (failed []*device) {
	a.super.mu.Lock()
	defer a.super.mu.Unlock()
	for _, d := range a.devs() {
		if d != nil && !d.writable.Load() && a.super.rows[d.slot].State != format.DeviceGone {
			a.super.rows[d.slot].State = format.DeviceReadOnly
			failed = append(failed, d)
		}
	}
	return failed
}

func (a *Array) writableDevices() int {
	n := 0
	for _, d := range a.devs() {
		if d != nil && d.takesWrites() {
			n++
		}
	}
	return n
}
