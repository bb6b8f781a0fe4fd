package lsa

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/internal/storefs"
	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// Open opens an array, after recovering what a crash left. It does not take
// the devices over: the caller closes them after Close.
func Open(ctx context.Context, o Options) (*Array, error) {
	a := newArray(o)
	err := a.recover(ctx)
	if err == nil && a.canGoOn() {
		// What it takes was to be seen first, with nothing written.
		if err = a.dismiss(); err == nil {
			a = newArray(o)
			a.goesOn = true
			err = a.recover(ctx)
		}
	}
	if err != nil {
		a.store.Hurry(0)
		if a.db != nil {
			err = errors.Join(err, a.db.Close())
		}
		return nil, fmt.Errorf("open array: %w", err)
	}
	a.store.FailWithin(0) // from here on somebody is served, and the disk may recover
	a.start()
	return a, nil
}

func newArray(o Options) *Array {
	o.fill()
	a := &Array{opts: o, log: o.Logger, catalog: newCatalog(), layerSizes: map[uint64]*layerCount{}, work: newBackground()}
	a.repairs = repairs{wanted: map[repair]bool{}, kicked: make(chan struct{}, 1)}
	a.append.space = sync.NewCond(&a.append.mu)
	a.ballast = newBallast(o.FS, o.Meta, o.MapCache, o.Logger.Error)
	a.store = a.ballast.wrap(storefs.Options{Failed: a.storeFailed, Fatal: a.storeFatal, Rest: a.restCompaction})
	a.store.FailWithin(openPatience)
	a.flush.done.L = &a.flush.mu
	return a
}

// inspect recovers an array in memory and writes nothing, neither to the
// devices nor to the metadata store. On failure it returns what it got to
// know until then; dismiss must follow in any case.
func inspect(ctx context.Context, o Options) (*Array, error) {
	a := newArray(o)
	a.readOnly = true
	return a, a.runSteps(ctx, a.readSteps(ctx))
}

// dismiss ends an inspection.
func (a *Array) dismiss() error {
	a.stop()
	if a.db == nil {
		return nil
	}
	return a.db.Close()
}

// Close flushes, makes a checkpoint and marks the array as closed in order.
func (a *Array) Close() error {
	a.append.mu.Lock()
	if a.append.closed {
		a.append.mu.Unlock()
		return nil
	}
	a.append.closed = true
	a.append.space.Broadcast()
	a.append.mu.Unlock()
	a.store.Hurry(closePatience)
	a.stop()
	var errs []error
	if !a.readOnly {
		errs = append(errs, a.closeInOrder())
	}
	errs = append(errs, a.db.Close())
	return errors.Join(errs...)
}

// closeInOrder writes down that nothing is left to recover. Twice: that all
// devices got as far as that is known from the second, so one that has less is
// not what it was then.
func (a *Array) closeInOrder() error {
	if err := a.Checkpoint(context.Background()); err != nil {
		return err
	}
	if err := a.insistOnSuperblocks(); err != nil {
		return err
	}
	a.super.mu.Lock()
	a.super.clean = true
	a.super.mu.Unlock()
	return a.writeSuperblocks()
}

// isStale says whether the array was used without the device, or with a later
// state of it, since that superblock was written.
func isStale(s, newest *format.Superblock, row format.DeviceRow) bool {
	switch {
	case planted(ruleRefuseStale):
		return false
	case row.State == format.DeviceInService:
		return s.Epoch < newest.Epoch && newest.Served || s.Sequence+1 < newest.Sequence && newest.Clean
	}
	return row.State == format.DeviceGone || row.State == format.DeviceLost
}

// adopt finds out which device is which. The newest superblock decides.
func (a *Array) adopt() (string, error) {
	supers := make([]*format.Superblock, len(a.opts.Devices))
	var newest *format.Superblock
	for i, d := range a.opts.Devices {
		s, err := readSuperblock(d)
		if err != nil {
			return "", err
		}
		if newest != nil && s.Array != newest.Array {
			return "", fmt.Errorf("device %s: %w: it belongs to array %v, the others to %v", d.Name(), ErrForeignDevice, s.Array, newest.Array)
		}
		supers[i] = s
		if newest == nil || newer(s, newest) {
			newest = s
		}
	}
	if newest == nil {
		return "", fmt.Errorf("%w: none was given", ErrMissingDevice)
	}
	a.super.load(newest)
	all := make([]*device, len(newest.Devices))
	a.slots.Store(&all)
	for i, d := range a.opts.Devices {
		if err := a.adoptDevice(d, supers[i], newest); err != nil {
			return "", err
		}
	}
	return a.checkMissing()
}

func (a *Array) adoptDevice(dev blockdev.Device, s, newest *format.Superblock) error {
	for slot, row := range newest.Devices {
		if row.ID != s.Device {
			continue
		}
		d := &device{dev: dev, slot: uint8(slot), row: row, segBytes: int64(newest.SegmentSize)}
		if a.devs()[slot] != nil {
			return fmt.Errorf("device %s: %w: %s has the same identity; one is a copy of the other", dev.Name(), ErrForeignDevice, a.devs()[slot].dev.Name())
		}
		if isStale(s, newest, row) {
			return fmt.Errorf("device %s: %w: the array was used without it, or with a later state of it, since (its epoch is %d, the array's %d; its superblock number %d, the array's %d)",
				dev.Name(), ErrStaleDevice, s.Epoch, newest.Epoch, s.Sequence, newest.Sequence)
		}
		if n := segmentsOf(dev, d.segBytes); n < int64(row.Segments) {
			return fmt.Errorf("device %s: %w: it was cut short: %d bytes, room for %d of its %d segments; made as long as it was (truncate -s %d) it lacks what was cut off and no more",
				dev.Name(), ErrDamaged, dev.Size(), max(n, 0), row.Segments, format.SegmentsOffset+int64(row.Segments)*d.segBytes)
		}
		d.segs = make([]segment, row.Segments)
		d.writable.Store(row.State == format.DeviceInService)
		a.devs()[slot] = d
		return nil
	}
	return fmt.Errorf("device %s: %w: device %v is not in the array's table", dev.Name(), ErrForeignDevice, s.Device)
}

func (a *Array) checkMissing() (string, error) {
	present := 0
	for slot, row := range a.super.rows {
		if a.devs()[slot] != nil {
			present++
			continue
		}
		if row.State == format.DeviceGone {
			continue
		}
		a.degraded = true
		if row.State == format.DeviceLost {
			continue // going on without it was begun
		}
		if !a.opts.Degraded {
			return "", fmt.Errorf("%w: the one of slot %d, identity %v; give it, or open degraded", ErrMissingDevice, slot, row.ID)
		}
		if a.missing++; !a.goesOn {
			a.readOnly = true
		}
	}
	return fmt.Sprintf("%d of %d devices, epoch %d", present, len(a.super.rows), a.super.epoch), nil
}

// openStore opens the metadata store and takes over what it holds.
func (a *Array) openStore() (string, error) {
	if err := a.lookAtStore(); err != nil {
		return "", err
	}
	fs := vfs.FS(readOnlyFS{a.opts.FS})
	if !a.readOnly {
		if err := a.ballast.take(); err != nil {
			a.log.Error("no reserve for the metadata store; writes are refused until there is room", "error", err)
		}
		fs = a.store
	}
	db, err := openMetastore(fs, a.opts.Meta, false, a.readOnly, a.log, a.storeFatal)
	if err != nil {
		return "", err
	}
	a.db = db
	state, err := readState(db)
	if err != nil {
		return "", err
	}
	if err := a.loadCatalog(state); err != nil {
		return "", err
	}
	if err := a.loadSegments(); err != nil {
		return "", err
	}
	a.checkpoint.lsn.Store(state.LSN)
	a.checkpoint.number = state.Number
	return fmt.Sprintf("checkpoint at LSN %d, %d volumes", state.LSN, len(a.catalog.volumes)), nil
}

func (a *Array) loadCatalog(state metaState) error {
	var layers []blockmap.Layer
	err := eachRow(a.db, keyLayer, func(key, value []byte) error {
		var l layerRow
		if err := unmarshalRow(value, &l); err != nil {
			return fmt.Errorf("layer row %x: %w", key, err)
		}
		if len(key) != 9 || idOf(key) != l.ID || l.Blocks < 0 {
			return fmt.Errorf("%w: layer row %x is of layer %d with %d blocks", format.ErrInvalid, key, l.ID, l.Blocks)
		}
		layers = append(layers, l.Layer)
		c := a.layerCount(l.ID)
		c.blocks.Store(l.Blocks)
		a.used.Add(l.Blocks)
		return nil
	})
	if err != nil {
		return err
	}
	a.catalog.nextID = max(1, state.NextID)
	var volumes []*volume
	err = eachRow(a.db, keyVolume, func(key, value []byte) error {
		v := &volume{}
		if err := unmarshalRow(value, v); err != nil {
			return fmt.Errorf("volume row %x: %w", key, err)
		}
		if len(key) != 9 || idOf(key) != v.ID {
			return fmt.Errorf("%w: volume row %x is of volume %d", format.ErrInvalid, key, v.ID)
		}
		volumes = append(volumes, v)
		return nil
	})
	if err == nil {
		err = checkCatalog(volumes, layers, a.catalog.nextID)
	}
	if err != nil {
		return fmt.Errorf("catalogue: %w", err)
	}
	for _, v := range volumes {
		a.catalog.add(v)
		a.noteCopies(v.Copies)
	}
	a.blocks = blockmap.New(a.db, blockmap.NewLayers(layers), a, a.opts.MapCache)
	a.blocks.DeltasFrom(a.opts.DeltasFrom)
	a.blocks.StoreWhole(a.super.incompat&format.FeatureDeltas == 0)
	return nil
}

func (a *Array) loadSegments() error {
	return eachRow(a.db, keySegment, func(key, value []byte) error {
		r, err := decodeSegmentRow(key, value)
		if err != nil {
			return err
		}
		if int(r.slot) >= len(a.devs()) {
			return fmt.Errorf("%w: segment of device %d", format.ErrInvalid, r.slot)
		}
		d := a.devs()[r.slot]
		if d == nil {
			return nil
		}
		if int(r.seg) >= len(d.segs) || r.used > d.segSectors() {
			return fmt.Errorf("%w: segment %d of device %d", format.ErrInvalid, r.seg, r.slot)
		}
		s := &d.segs[r.seg]
		s.state, s.used, s.damaged = r.state, r.used, r.damaged
		s.class.Store(uint32(r.class))
		s.generation, s.firstLSN, s.maxLSN = r.generation, r.firstLSN, r.maxLSN
		s.live.Store(r.live)
		d.live.Add(int64(r.live))
		return nil
	})
}

// RecoveryStep is one thing that Open did.
type RecoveryStep struct {
	Name   string        `json:"name"`
	Detail string        `json:"detail"`
	Took   time.Duration `json:"took_ns"`
}

// RecoveryReport says what Open found and did.
type RecoveryReport struct {
	Steps     []RecoveryStep `json:"steps"`
	Clean     bool           `json:"clean"`     // closed in order before
	Records   int            `json:"records"`   // replayed
	Bytes     int64          `json:"bytes"`     // of log that were scanned
	CutLSN    uint64         `json:"cut_lsn"`   // the last that counts
	Discarded int            `json:"discarded"` // records behind the cut, never flushed
	Took      time.Duration  `json:"took_ns"`   // all of it
	// MayHaveLost: not all that was acknowledged may be there, so the array has another incarnation.
	MayHaveLost bool     `json:"may_have_lost"`
	Gaps        []string `json:"gaps"`               // missing LSNs, in a degraded array
	Damaged     int      `json:"damaged"`            // durable records whose data is damaged
	Restored    bool     `json:"restored,omitempty"` // from a copy that lacks what was served since: MayHaveLost
	OneCopy     int      `json:"one_copy"`           // records of which there should be two copies and is one
	maxDurable  uint64
}

// Recovery returns the report of Open.
func (a *Array) Recovery() RecoveryReport { return a.recovery }
