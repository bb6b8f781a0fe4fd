package lsa

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/internal/direct"
	"lsad/lsa/format"
)

// Defaults of Options.
const (
	DefaultMapCache        = 256 << 20
	checkpointShare        = 16 // of MapCache is one part left for what checkpoints write
	DefaultCheckpointBytes = 512 << 20
	DefaultCheckpointEvery = 30 * time.Second
	DefaultSeparateFrom    = 512
)

// Events is told what a collector wants to know. The methods are called with
// the append lock held: they must return at once and not call the array.
type Events interface {
	// SegmentUsed: a segment of the device was opened; so many are unused.
	SegmentUsed(slot, unused int)
	// SpaceWanted: a writer waits for room.
	SpaceWanted()
}

// Served remembers the epoch that an array at this place had last. If the array comes with an older one it was restored from
// a copy, and lacks what was acknowledged since, whatever it says itself.
type Served interface {
	// Last is the epoch that was noted last, 0 if none was.
	Last(array format.UUID) uint64
	// Note is called once the epoch is durable, before anybody is served.
	Note(array format.UUID, epoch uint64)
}

// Options of Open.
type Options struct {
	Devices  []blockdev.Device // any order: superblocks say which is which
	FS       vfs.FS            // of the metadata store
	Meta     string            // its directory
	MapCache int64             // bytes, 0 for DefaultMapCache
	Degraded bool              // open without missing devices: see canGoOn; else read-only
	Logger   *slog.Logger      // nil discards
	Events   Events            // nil if nobody collects
	Uses     *direct.Uses      // who reads from the devices by Handle.Locate; nil if nobody does
	// Placement separates blocks; nil keeps apart what clients write and what
	// is moved.
	Placement Placement
	// SeparateFrom so many segments on each device Placement is used, 0 for
	// the default: on smaller ones the segments that it has open would take
	// more room than it saves.
	SeparateFrom int
	// DeltasFrom so many entries in a map page on, checkpoints store what changed of it if that is little; 0 for the
	// default, below which a page is about as small itself.
	DeltasFrom int
	// ViewsFrom so many ancestors of a layer that had to be looked at for a map page, what it shows there is kept in the
	// metadata store; 0 for the default.
	ViewsFrom int

	// CheckpointBytes of log between checkpoints, 0 for the default.
	CheckpointBytes int64
	// CheckpointEvery so often where there are changes, 0 for the default;
	// negative: only by need and by hand.
	CheckpointEvery time.Duration
	// Fatal ends the process, since the metadata store cannot go on; nothing
	// acknowledged is lost. It does not return; nil panics.
	Fatal func(error)
	// BootID of the host, to tell a crash of the server from one of the host.
	BootID format.UUID
	// Served remembers what was served for as long as the host runs; nil: nobody does.
	Served Served
}

func (o *Options) fill() {
	if o.MapCache == 0 {
		o.MapCache = DefaultMapCache
	}
	if o.CheckpointBytes == 0 {
		o.CheckpointBytes = DefaultCheckpointBytes
	}
	if o.CheckpointEvery == 0 {
		o.CheckpointEvery = DefaultCheckpointEvery
	}
	if o.SeparateFrom == 0 {
		o.SeparateFrom = DefaultSeparateFrom
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// CreateOptions of Create.
type CreateOptions struct {
	Devices     []blockdev.Device // 1 to 64; the order is that of the slots
	FS          vfs.FS
	Meta        string
	SegmentSize int64 // bytes, a power of two, 0 for 32 MiB
	Logger      *slog.Logger
}

func (o *CreateOptions) check() error {
	if o.SegmentSize == 0 {
		o.SegmentSize = format.DefaultSegmentSize
	}
	if n := o.SegmentSize; n < format.MinSegmentSize || n > format.MaxSegmentSize || n&(n-1) != 0 {
		return fmt.Errorf("create array: %w: segment size %d is not a power of two from %d to %d bytes",
			ErrInvalid, n, format.MinSegmentSize, format.MaxSegmentSize)
	}
	if n := len(o.Devices); n == 0 || n > format.MaxDevices {
		return fmt.Errorf("create array: %w: %d devices, it takes 1 to %d", ErrInvalid, n, format.MaxDevices)
	}
	for _, d := range o.Devices {
		if n := segmentsOf(d, o.SegmentSize); n < minSegments {
			return fmt.Errorf("create array: %w: device %s has %d bytes, room for %d segments of %d; it takes %d",
				ErrInvalid, d.Name(), d.Size(), max(n, 0), o.SegmentSize, minSegments)
		}
	}
	return nil
}

// minSegments on a device: below it, collecting cannot work.
const minSegments = 8

func segmentsOf(d blockdev.Device, segmentSize int64) int64 {
	return (d.Size() - format.SegmentsOffset) / segmentSize
}
