package lsa

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/loglimit"
	"lsad/internal/storefs"
	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// Keys of the metadata store, by first byte. Package blockmap owns 'm'.
const (
	keyState   = 'a' // one row: metaState
	keyLayer   = 'l' // + layer id: layerRow
	keySegment = 's' // + slot + segment: segmentRow
	keyVolume  = 'v' // + volume id: volume
)

// metaState says what the store is of, and up to where it holds.
type metaState struct {
	Version int    `json:"version"`
	Array   string `json:"array"`
	Epoch   uint64 `json:"epoch"`
	LSN     uint64 `json:"lsn"`              // of the checkpoint: replay begins behind it
	Number  uint64 `json:"number,omitempty"` // of the checkpoint, one more than that of the one before
	NextID  uint64 `json:"next_id"`
}

type layerRow struct {
	blockmap.Layer
	Blocks int64 `json:"blocks"`
}

// maxTables is how many layers of tables above the others there may be when a
// batch is added: each of them is looked at by reads.
const maxTables = 12

// never is more than there can be of something.
const never = 1 << 20

// openMetastore opens Pebble without a log of its own: the array's log is that.
// It does not stall who writes: applyToStore does, and can be interrupted. fs is a
// storefs.FS if the store is to be written.
func openMetastore(fs vfs.FS, dir string, create, readOnly bool, log *slog.Logger, fatal func(error)) (*pebble.DB, error) {
	store, _ := fs.(*storefs.FS)
	var damaged loglimit.Limiter
	o := &pebble.Options{
		FS:                 fs,
		DisableWAL:         true,
		ErrorIfExists:      create,
		ErrorIfNotExists:   !create,
		ReadOnly:           readOnly,
		FormatMajorVersion: pebble.FormatNewest,
		Merger:             blockmap.Merger,
		CacheSize:          16 << 20,
		MemTableSize:       1 << 20,
		Logger:             pebbleLogger{log, store, fatal},

		// Most tables hold little, and a compaction often rewrites the whole map: at four layers of them, not two.
		L0CompactionThreshold:       8,
		MemTableStopWritesThreshold: never,
		L0StopWritesThreshold:       never,
		EventListener: &pebble.EventListener{
			// Left alone, the store ends the process where a table is damaged.
			// Whoever reads it gets an error, which is enough.
			DataCorruption: func(i pebble.DataCorruptionInfo) {
				if store != nil && store.GivenUp() {
					return // it misses what was left out
				}
				if more, ok := damaged.Allow(time.Now()); ok { // each read of it says so
					log.Error("a file of the metadata store is damaged or missing", "file", i.Path, "error", i.Details.Error(), "more_since_last", more)
				}
			},
			BackgroundError: func(err error) { backgroundError(store, log, err) },
		},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		// Pages are differences and checksums: what is left to compress is not worth the time.
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	db, err := pebble.Open(dir, o)
	if store != nil && store.GivenUp() {
		if err == nil {
			err = db.Close()
		}
		return nil, errors.Join(storeGaveUp(store, dir), err)
	}
	if err != nil {
		return nil, fmt.Errorf("open metadata store %s: %w", dir, blockmap.StoreError(err))
	}
	return db, nil
}

func segmentKey(slot uint8, seg uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{keySegment, slot}, seg)
}

func idKey(prefix byte, id uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, id)
}

func idOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[1:]) }

// unmarshalRow reads a JSON row and refuses fields that it does not know: a
// format that has more of them has another version or a feature bit.
func unmarshalRow(value []byte, row any) error {
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	if err := d.Decode(row); err != nil {
		return fmt.Errorf("%w: %w", format.ErrInvalid, err)
	}
	if d.InputOffset() != int64(len(value)) {
		return fmt.Errorf("%w: something follows on the row", format.ErrInvalid)
	}
	return nil
}

// segmentRow is a segment as of a checkpoint: 40 bytes, little-endian, and 8 more
// once a block has left it.
type segmentRow struct {
	slot       uint8
	seg        uint32
	state      segmentState
	class      uint8
	damaged    bool
	live, used uint32
	generation uint64
	firstLSN   uint64
	maxLSN     uint64
	left       uint64 // see segment
}

const (
	segmentRowSize     = 40 // version 1
	segmentRowLeftSize = 48 // version 2
)

func (r *segmentRow) encode() []byte {
	le := binary.LittleEndian
	b := []byte{1, byte(r.state), r.class, 0}
	if r.left != 0 {
		b[0] = 2
	}
	if r.damaged {
		b[3] = 1
	}
	b = le.AppendUint32(b, r.live)
	b = le.AppendUint32(b, r.used)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, r.generation)
	b = le.AppendUint64(b, r.firstLSN)
	b = le.AppendUint64(b, r.maxLSN)
	if r.left != 0 {
		b = le.AppendUint64(b, r.left)
	}
	return b
}

func decodeSegmentRow(key, v []byte) (r segmentRow, err error) {
	le := binary.LittleEndian
	var left uint64
	if len(v) == segmentRowLeftSize && v[0] == 2 {
		if left = le.Uint64(v[segmentRowSize:]); left == 0 {
			return r, fmt.Errorf("%w: segment row %x", format.ErrInvalid, key)
		}
		v = append([]byte{1}, v[1:segmentRowSize]...)
	}
	if len(key) != 6 || len(v) != segmentRowSize || v[0] != 1 || v[1] > uint8(segSealed) || v[2] >= MaxClasses || v[3] > 1 || le.Uint32(v[12:]) != 0 {
		return r, fmt.Errorf("%w: segment row %x", format.ErrInvalid, key)
	}
	return segmentRow{
		slot: key[1], seg: binary.BigEndian.Uint32(key[2:]),
		state: segmentState(v[1]), class: v[2], damaged: v[3] != 0,
		live: le.Uint32(v[4:]), used: le.Uint32(v[8:]), generation: le.Uint64(v[16:]), firstLSN: le.Uint64(v[24:]), maxLSN: le.Uint64(v[32:]),
		left: left,
	}, nil
}

// readState returns the store's state row.
func readState(db *pebble.DB) (s metaState, err error) {
	v, closer, err := db.Get([]byte{keyState})
	if errors.Is(err, pebble.ErrNotFound) {
		return s, fmt.Errorf("metadata store: %w: no state in it", format.ErrInvalid)
	}
	if err != nil {
		return s, fmt.Errorf("metadata store: %w", blockmap.StoreError(err))
	}
	defer closer.Close()
	if err := unmarshalRow(v, &s); err != nil {
		return s, fmt.Errorf("metadata store: state row: %w", err)
	}
	if s.Version != format.Version {
		return s, fmt.Errorf("metadata store: %w: version %d, this build reads %d", format.ErrInvalid, s.Version, format.Version)
	}
	return s, nil
}

// eachRow calls fn with every row of one kind.
func eachRow(db *pebble.DB, prefix byte, fn func(key, value []byte) error) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
	if err != nil {
		return fmt.Errorf("metadata store: %w", blockmap.StoreError(err))
	}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = fn(it.Key(), v)
		}
		if err != nil {
			it.Close()
			return fmt.Errorf("metadata store: %w", blockmap.StoreError(err))
		}
	}
	return blockmap.StoreError(it.Close())
}
