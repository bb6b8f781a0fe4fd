package lsa

import (
	"cmp"
	"encoding/json"
	"errors"
	"sort"
	"sync/atomic"
	"time"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// counters since the array was opened.
type counters struct {
	appends, overhead            atomic.Int64
	bytes                        [originCount]atomic.Int64 // by origin
	flushes, damaged             atomic.Int64
	copiesMissed, repaired       atomic.Int64
	readsOfOther, rebuilt        atomic.Int64
	checkpoints, checkpointNanos atomic.Int64
}

// Metrics are counters since the array was opened, and some gauges.
type Metrics struct {
	Appends       int64          // records written
	UserBytes     int64          // data that clients wrote
	MovedBytes    int64          // data that collections moved
	OverheadBytes int64          // headers of records
	Syncs         int64          // rounds of syncing
	DamagedReads  int64          // blocks whose checksum did not match
	OtherReads    int64          // reads that took the other copy since the one was bad or away
	Repaired      int64          // blocks of which a bad copy was written anew
	Rebuilt       int64          // blocks that got a second copy again
	CopiesMissed  int64          // records of which one copy could be written nowhere
	Checkpoints   int64          // completed
	CheckpointFor time.Duration  // spent in them
	LogBytes      int64          // behind the last checkpoint
	MapCache      blockmap.Stats // of the map's page cache
}

// Metrics returns them as they are now.
func (a *Array) Metrics() Metrics {
	c := &a.counters
	return Metrics{
		Appends: c.appends.Load(), UserBytes: c.bytes[originUser].Load(), MovedBytes: c.bytes[originMoved].Load(),
		OverheadBytes: c.overhead.Load(), Syncs: c.flushes.Load(), DamagedReads: c.damaged.Load(),
		OtherReads: c.readsOfOther.Load(), Repaired: c.repaired.Load(), Rebuilt: c.rebuilt.Load(), CopiesMissed: c.copiesMissed.Load(),
		Checkpoints: c.checkpoints.Load(), CheckpointFor: time.Duration(c.checkpointNanos.Load()),
		LogBytes: a.logBytes.Load(), MapCache: a.blocks.Stats(),
	}
}

// DeviceInfo describes a device.
type DeviceInfo struct {
	Slot      int    `json:"slot"`
	Name      string `json:"name"` // its path; "" if it is absent
	ID        string `json:"id"`
	State     string `json:"state"` // in service, read-only, removing, absent, gone
	Size      int64  `json:"size_bytes"`
	Segments  int    `json:"segments"`
	Unused    int    `json:"segments_unused"` // free and ready ones
	Open      int    `json:"segments_open"`
	Sealed    int    `json:"segments_sealed"`
	Emptied   int    `json:"segments_emptied"` // sealed, nothing live: unused after the next checkpoint
	LiveBytes int64  `json:"live_bytes"`
	HostFull  bool   `json:"host_full"` // the file system below it has no room for another segment
	StoreLow  bool   `json:"store_low"` // it is that of the metadata store that has no room for what another segment would need
}

// Devices returns the devices in order of their slots.
func (a *Array) Devices() []DeviceInfo {
	a.super.mu.Lock()
	rows := append([]format.DeviceRow(nil), a.super.rows...)
	a.super.mu.Unlock()
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	devs := a.devs()
	var all []DeviceInfo
	for slot, row := range rows {
		i := DeviceInfo{Slot: slot, ID: row.ID.String(), State: "absent", Segments: int(row.Segments)}
		if row.State == format.DeviceGone {
			i.State = row.State.String()
		}
		if slot >= len(devs) {
			break // about to be added
		}
		if d := devs[slot]; d != nil {
			i.Name, i.Size, i.Unused = d.dev.Name(), d.dev.Size(), d.unused()
			i.HostFull, i.StoreLow = d.hostFull && !d.storeLow, d.hostFull && d.storeLow
			if i.State = row.State.String(); row.State == format.DeviceInService && !d.writable.Load() {
				i.State = format.DeviceReadOnly.String()
			}
			if d.draining.Load() {
				i.State = "removing"
			}
			for j := range d.segs {
				d.segs[j].addTo(&i)
			}
		}
		all = append(all, i)
	}
	return all
}

func (s *segment) addTo(i *DeviceInfo) {
	live := s.live.Load()
	i.LiveBytes += int64(live) * format.BlockSize
	switch {
	case s.state == segOpen:
		i.Open++
	case s.state == segSealed && live == 0:
		i.Emptied++
		i.Sealed++
	case s.state == segSealed:
		i.Sealed++
	}
}

// Status describes the array.
type Status struct {
	Array       string `json:"array"`
	Epoch       uint64 `json:"epoch"`
	Incarnation uint64 `json:"incarnation"` // changes when acknowledged writes may have been lost
	SegmentSize int64  `json:"segment_size_bytes"`
	Capacity    int64  `json:"capacity_bytes"` // that volumes may hold
	Used        int64  `json:"used_bytes"`
	Free        int64  `json:"free_bytes"`
	ReadOnly    bool   `json:"read_only"`
	Failure     string `json:"failure,omitempty"` // why no changes are taken, or soon none will be
	// StoreFailure is the part of Failure that is the metadata store's.
	StoreFailure string       `json:"store_failure,omitempty"`
	OneCopy      string       `json:"one_copy,omitempty"` // why blocks that are to have two copies have one
	Committed    uint64       `json:"committed_lsn"`
	Durable      uint64       `json:"durable_lsn"`
	Checkpoint   uint64       `json:"checkpoint_lsn"`
	Devices      []DeviceInfo `json:"devices"`
}

// Status returns it as it is now.
func (a *Array) Status() Status {
	used := a.used.Load() * format.BlockSize
	limit := a.limit.Load() * format.BlockSize
	s := Status{
		Array: a.super.array.String(), Epoch: a.super.epoch, Incarnation: a.super.incarnation, SegmentSize: int64(a.super.segmentSize),
		Capacity: limit, Used: used, Free: max(0, limit-used), ReadOnly: a.readOnly, OneCopy: a.copiesMissing(),
		Committed: a.committed.Load(), Durable: a.flush.durable.Load(), Checkpoint: a.checkpoint.lsn.Load(), Devices: a.Devices(),
	}
	store := cmp.Or(a.unreadProblem(), a.storeProblem()) // clients feel the first at once
	if err := errors.Join(a.failed(), store); err != nil {
		s.Failure = err.Error()
	}
	if store != nil {
		s.StoreFailure = store.Error()
	}
	return s
}

// SnapshotInfo describes a snapshot.
type SnapshotInfo struct {
	Name    string    `json:"name"`
	Size    int64     `json:"size_bytes"`
	Created time.Time `json:"created"`
	Own     int64     `json:"own_bytes"` // in the snapshot's own layer
	ID      uint64    `json:"id"`        // of no other snapshot, also of the same name
}

// VolumeInfo describes a volume.
type VolumeInfo struct {
	Name      string         `json:"name"`
	ID        uint64         `json:"id"`
	Size      int64          `json:"size_bytes"`
	Copies    int            `json:"copies"` // of each block
	Created   time.Time      `json:"created"`
	Mapped    int64          `json:"own_bytes"`        // that what was written since the last snapshot takes, with all copies
	Origin    string         `json:"origin,omitempty"` // volume@snapshot, or sealed volume, of which it is a clone
	Snapshots []SnapshotInfo `json:"snapshots"`        // oldest first
	Clients   []string       `json:"clients"`
	Sealed    bool           `json:"sealed,omitempty"` // never written again
	Turns     uint64         `json:"turns,omitempty"`  // how often it was reverted, or shrank
	// Attributes are a JSON document that means nothing to the array.
	Attributes json.RawMessage `json:"attributes,omitempty"`
}

// Volumes returns all volumes in name order.
func (a *Array) Volumes() []VolumeInfo {
	// The commit lock, since layers' sizes change under it.
	a.commit.mu.Lock()
	defer a.commit.mu.Unlock()
	a.catalog.mu.Lock()
	defer a.catalog.mu.Unlock()
	var all []VolumeInfo
	for _, v := range a.catalog.sorted() {
		all = append(all, a.info(v))
	}
	return all
}

// Volume returns one volume.
func (a *Array) Volume(name string) (VolumeInfo, error) {
	v, err := a.catalog.find(name)
	if err != nil {
		return VolumeInfo{}, err
	}
	a.commit.mu.Lock()
	defer a.commit.mu.Unlock()
	a.catalog.mu.Lock()
	defer a.catalog.mu.Unlock()
	return a.info(v), nil
}

func (a *Array) info(v *volume) VolumeInfo {
	own := func(layer uint64) int64 {
		if c := a.layerSizes[layer]; c != nil {
			return c.blocks.Load() * format.BlockSize
		}
		return 0
	}
	i := VolumeInfo{Name: v.Name, ID: v.ID, Size: v.Size, Copies: max(1, v.Copies), Created: v.Created, Mapped: own(v.Head), Origin: v.Origin, Sealed: v.Sealed, Turns: v.Turns, Attributes: v.Attributes, Snapshots: []SnapshotInfo{}, Clients: []string{}}
	for _, s := range v.Snapshots {
		i.Snapshots = append(i.Snapshots, SnapshotInfo{s.Name, s.Size, s.Created, own(s.Layer), s.Layer})
	}
	for h := range v.handles {
		i.Clients = append(i.Clients, h.client)
	}
	sort.Strings(i.Clients)
	return i
}
