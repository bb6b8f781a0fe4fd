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
