package lsa

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"lsad/internal/storefs"
	"lsad/lsa/format"
)

// Create makes an empty array of the devices, which must not carry one, and a
// metadata store in an empty directory.
func Create(ctx context.Context, o CreateOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	for _, d := range o.Devices {
		if err := blank(d); err != nil {
			return fmt.Errorf("create array: %w", err)
		}
	}
	s := superState{array: newUUID(), secret: randomUint64(), segmentSize: uint32(o.SegmentSize), sequence: 1, clean: true, served: true, incarnation: randomUint64(), incompat: format.FeaturesIncompat}
	for _, d := range o.Devices {
		s.rows = append(s.rows, format.DeviceRow{ID: newUUID(), Segments: uint32(segmentsOf(d, o.SegmentSize))})
	}
	if err := createMetastore(&o, &s); err != nil {
		return fmt.Errorf("create array: %w", err)
	}
	for slot, d := range o.Devices {
		if err := writeSuperblock(d, s.superblock(uint8(slot)), d.Sync); err != nil {
			return fmt.Errorf("create array: %w", err)
		}
	}
	return nil
}

func createMetastore(o *CreateOptions, s *superState) error {
	full := Options{Logger: o.Logger}
	full.fill()
	store := storefs.New(o.FS, storefs.Options{})
	store.Hurry(0)
	db, err := openMetastore(store, o.Meta, true, false, full.Logger, nil)
	if err != nil {
		return err
	}
	row, err := json.Marshal(metaState{Version: format.Version, Array: s.array.String(), NextID: 1})
	if err == nil {
		err = db.Set([]byte{keyState}, row, pebble.NoSync)
	}
	if err == nil {
		err = db.Flush()
	}
	if store.GivenUp() {
		err = errors.Join(storeGaveUp(store, o.Meta), err)
	}
	return errors.Join(err, db.Close())
}

func newUUID() (u format.UUID) {
	rand.Read(u[:])
	return u
}

func randomUint64() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}
