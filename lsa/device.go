package lsa

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// segmentState says what a segment is for. Values are in the metadata store.
type segmentState uint8

const (
	// segFree: unused; may be made ready by the next checkpoint.
	segFree segmentState = iota
	// segReady: unused, and a durable checkpoint says that it may be opened,
	// so that recovery knows to look there.
	segReady
	// segOpen takes appends.
	segOpen
	// segSealed takes none any more.
	segSealed
)

func (s segmentState) String() string {
	return [...]string{"free", "ready", "open", "sealed"}[s&3]
}

// segment is one fixed part of a device.
type segment struct {
	// Guarded by Array.append.mu.
	state      segmentState
	allocated  bool // the file system below has given the room, since the array was opened
	stale      bool // free or ready, and may have room below that nobody counts on
	discarding bool // not to be chosen until that is done
	freedAt    time.Time
	damaged    bool // holds live blocks that cannot be read: not to be collected
	collecting bool
	used       uint32 // sectors appended to
	generation uint64 // of its last use
	firstLSN   uint64 // the next one when it was opened
	maxLSN     uint64 // of its records
	// left is the number of the first checkpoint that has not all the blocks here
	// any more which were moved away, 0 if none was; see blockmap.Places.
	left atomic.Uint64
	// live blocks, that the map has here. Changed under Array.commit.mu.
	live atomic.Uint32
	// dirty: changed since the last checkpoint took it. Any of the two locks
	// may be held, hence atomic.
	dirty atomic.Bool
	// class of what is appended to it in this use; changed under append.mu.
	class atomic.Uint32
}

// stream is the open segment of a device for one class of data.
type stream struct {
	open bool
	seg  uint32
	next uint32 // the sector where the next record begins
}

// device is a device of the array.
type device struct {
	dev      blockdev.Device
	slot     uint8
	row      format.DeviceRow
	segBytes int64
	segs     []segment

	// Guarded by Array.append.mu.
	streams   [MaxClasses]stream
	ready     []uint32 // segReady, to be allocated
	prepared  []uint32 // segReady and allocated: can be opened without I/O
	preparing int      // between ready and prepared
	free      int      // how many are segFree
	turn      float64  // see Array.sooner
	hostFull  bool     // the file system below had no room
	storeLow  bool     // hostFull, but for the metadata store's file system
	warm      int      // segments that are free or ready and allocated

	busy atomic.Int32 // collections under way

	live atomic.Int64 // blocks that the map has on it

	// writable is false once the device is out of service.
	writable atomic.Bool
	// draining: it is being removed, and takes nothing new.
	draining atomic.Bool
	// appended counts completed appends, synced how many of them a successful
	// sync covers.
	appended atomic.Uint64
	synced   atomic.Uint64
	// unsyncedSectors were given to records that no sync covers.
	unsyncedSectors atomic.Int64

	syncMu     sync.Mutex // held during every sync of the device
	syncFailed bool       // guarded by syncMu: the kernel may have dropped what it could not write

	mu       sync.Mutex
	tail     []recordRef // during recovery: records behind the last LSN known to be durable
	dropped  []recordRef // during recovery: records that do not count, where new ones will be appended
	unsynced []recordRef // appended, not covered by a sync, in order of completion; row.State too is guarded by mu
}

// recordRef finds a record again.
type recordRef struct {
	seq     uint64 // value of appended after it
	seg     uint32
	sector  uint32
	sectors uint32
	other   *device // has another copy; nil if none has
}

// takesWrites says whether records may be appended to the device.
func (d *device) takesWrites() bool { return d.writable.Load() && !d.draining.Load() }

func (d *device) segSectors() uint32 { return uint32(d.segBytes / format.SectorSize) }

// segBlocks is how many blocks a segment holds at best.
func (d *device) segBlocks() int64 { return d.segBytes/format.BlockSize - 1 }

// offset in bytes of a sector of a segment.
func (d *device) offset(seg, sector uint32) int64 {
	return format.SegmentsOffset + int64(seg)*d.segBytes + int64(sector)*format.SectorSize
}

// holds says whether blocks at p, count of them, lie within the device.
func (d *device) holds(p format.Place, count int) bool {
	return int(p.Segment()) < len(d.segs) && p.Sector() > 0 &&
		p.Sector()+uint32(count*format.BlockSectors) <= d.segSectors()
}

// unused segments, ready ones included. append.mu is held.
func (d *device) unused() int { return d.free + len(d.ready) + d.preparing + len(d.prepared) }

func (d *device) setState(seg uint32, s segmentState) {
	d.segs[seg].state = s
	d.segs[seg].dirty.Store(true)
}

// noteAppended remembers a record until a sync covers it.
func (d *device) noteAppended(ref recordRef) {
	d.mu.Lock()
	ref.seq = d.appended.Add(1)
	d.unsynced = append(d.unsynced, ref)
	d.mu.Unlock()
}

// state is what the other devices know of it.
func (d *device) state() format.DeviceState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.row.State
}

// errSyncedBefore: another sync of the device failed.
var errSyncedBefore = fmt.Errorf("%w: an earlier sync failed", ErrFailed)

// syncOnce syncs the device, unless any sync of it failed before: the next one
// might say that all is well, although what the kernel could not write is gone.
func (d *device) syncOnce() error {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	if d.syncFailed && !planted(ruleFailedSyncStays) {
		return errSyncedBefore
	}
	err := d.dev.Sync()
	d.syncFailed = d.syncFailed || err != nil
	return err
}

// sync makes what was appended so far durable.
func (d *device) sync() error {
	seq := d.appended.Load()
	if seq == d.synced.Load() {
		return nil
	}
	if err := d.syncOnce(); err != nil {
		return fmt.Errorf("sync device %s: %w", d.dev.Name(), err)
	}
	d.mu.Lock()
	n, sectors := 0, int64(0)
	for n < len(d.unsynced) && d.unsynced[n].seq <= seq {
		sectors += int64(d.unsynced[n].sectors)
		n++
	}
	d.unsyncedSectors.Add(-sectors)
	d.unsynced = append(d.unsynced[:0], d.unsynced[n:]...)
	d.synced.Store(max(d.synced.Load(), seq)) // a rescue may have been faster
	d.mu.Unlock()
	return nil
}
