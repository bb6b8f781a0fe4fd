package lsa

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

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
	if a.super.incompat&format.FeatureViews != 0 {
		a.blocks.PauseViews(a.readOnly)
		if err := a.blocks.KeepViews(a, state.Number, a.opts.ViewsFrom); err != nil {
			a.log.Warn("some kept views of map pages cannot be used; reads of volumes with many snapshots may take longer", "error", err)
		}
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
	// What a checkpoint writes is in memory beside the pages, and is a part of the bound.
	a.blocks = blockmap.New(a.db, blockmap.NewLayers(layers), a, a.opts.MapCache-a.opts.MapCache/checkpointShare)
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
		s.left.Store(r.left)
		d.live.Add(int64(r.live))
		return nil
	})
}
