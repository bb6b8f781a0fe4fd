package admin

import "time"

// Status is the state of the server and its array.
type Status struct {
	Version       string    `json:"version"`
	PID           int       `json:"pid"`
	Started       time.Time `json:"started"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	Dir           string    `json:"dir"`
	Listen        Listen    `json:"listen"`

	State       string `json:"state"` // "serving", "degraded" or "failed"
	Problem     string `json:"problem,omitempty"`
	SizeBytes   int64  `json:"size_bytes"` // capacity of all segments
	UsedBytes   int64  `json:"used_bytes"` // live data
	FreeBytes   int64  `json:"free_bytes"` // what can still be written
	Volumes     int    `json:"volumes"`
	Snapshots   int    `json:"snapshots"`
	Connections int    `json:"connections"`

	LSN      LSNs      `json:"lsn"`
	Devices  []Device  `json:"devices"`
	Metadata []MetaDir `json:"metadata"`
	Recovery Recovery  `json:"recovery"`
}

// Listen is where the server can be reached.
type Listen struct {
	NBD   []string `json:"nbd"`
	Admin []string `json:"admin"`
	HTTP  []string `json:"http"`
}

// LSNs are the marks of the log: Checkpoint <= Durable <= Committed.
type LSNs struct {
	Committed  uint64 `json:"committed"`  // the newest change acknowledged
	Durable    uint64 `json:"durable"`    // up to here power loss loses nothing
	Checkpoint uint64 `json:"checkpoint"` // from here recovery replays
}

// Device is one device of the array. Unused, open and sealed segments add up to all.
type Device struct {
	Slot      int    `json:"slot"`
	Name      string `json:"name"`
	ID        string `json:"id"`
	State     string `json:"state"`
	InService bool   `json:"in_service"` // read and written; false while it is missing or read-only
	SizeBytes int64  `json:"size_bytes"`
	LiveBytes int64  `json:"live_bytes"`
	Segments  int    `json:"segments"`
	Unused    int    `json:"segments_unused"`
	Open      int    `json:"segments_open"`
	Sealed    int    `json:"segments_sealed"`
	Emptied   int    `json:"segments_emptied"`  // of the sealed: nothing live, unused after the next checkpoint
	Problem   string `json:"problem,omitempty"` // what became of its file
}

// MetaDir is a directory that holds the array's metadata.
type MetaDir struct {
	Dir       string     `json:"dir"`
	InService bool       `json:"in_service"`
	Since     *time.Time `json:"since,omitempty"`   // out of service
	Problem   string     `json:"problem,omitempty"` // why
}

// Recovery is what opening the array found and did.
type Recovery struct {
	New       bool           `json:"new,omitempty"` // the array was made at this start
	Clean     bool           `json:"clean"`         // the array had been closed in order
	Seconds   float64        `json:"seconds"`
	Records   int            `json:"records"`       // replayed
	Discarded int            `json:"discarded"`     // records behind the cut, which nobody had flushed
	Damaged   int            `json:"damaged"`       // durable records whose data is damaged
	Bytes     int64          `json:"bytes_scanned"` // of log
	CutLSN    uint64         `json:"cut_lsn"`       // the last that counts
	Steps     []RecoveryStep `json:"steps"`
}

// RecoveryStep is one named step of a recovery.
type RecoveryStep struct {
	Name    string  `json:"name"`
	Detail  string  `json:"detail"`
	Seconds float64 `json:"seconds"`
}

// Volume is one volume.
type Volume struct {
	Name        string     `json:"name"`
	ID          uint64     `json:"id"`
	SizeBytes   int64      `json:"size_bytes"`
	Copies      int        `json:"copies"`       // of each block
	MappedBytes int64      `json:"mapped_bytes"` // what the volume itself maps and no snapshot shares
	Created     time.Time  `json:"created"`
	Origin      string     `json:"origin,omitempty"` // "VOLUME@SNAPSHOT" that it is a clone of
	Snapshots   []Snapshot `json:"snapshots"`        // oldest first
	Clients     []string   `json:"clients"`
}

// Snapshot is one snapshot of a volume.
type Snapshot struct {
	Name      string    `json:"name"`
	SizeBytes int64     `json:"size_bytes"`
	OwnBytes  int64     `json:"own_bytes"`
	Created   time.Time `json:"created"`
}

// Connection is one NBD client.
type Connection struct {
	ID            uint64    `json:"id"`
	Client        string    `json:"client"`
	Certificate   string    `json:"certificate,omitempty"` // common name
	TLS           bool      `json:"tls"`
	Export        string    `json:"export"`
	ReadOnly      bool      `json:"read_only"`
	Since         time.Time `json:"since"`
	InFlight      int       `json:"in_flight"`
	BytesReceived uint64    `json:"bytes_received"`
	BytesSent     uint64    `json:"bytes_sent"`
}

// CreateVolume asks for a volume.
type CreateVolume struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes"`
	Copies    int    `json:"copies,omitempty"` // of each block: 1 or 2, 0 for 1
}

// ResizeVolume asks for another size. Force allows a smaller one, which loses what lies beyond it.
type ResizeVolume struct {
	SizeBytes int64 `json:"size_bytes"`
	Force     bool  `json:"force"`
}

// Named is a request whose one argument is a name: the new one of a rename, that of a snapshot or of a clone.
type Named struct {
	Name string `json:"name"`
}

// GCDevice is the garbage collection of one device.
type GCDevice struct {
	Device          string   `json:"device"`
	Mode            string   `json:"mode"`
	Policy          string   `json:"policy"`
	State           string   `json:"state"` // why it collects now, or "none"
	Unused          int      `json:"segments_unused"`
	Pending         int      `json:"segments_pending"` // empty, waiting for a checkpoint
	Total           int      `json:"segments"`
	Low             int      `json:"low"`
	High            int      `json:"high"`
	AltLow          int      `json:"alt_low"`
	AltHigh         int      `json:"alt_high"`
	PeriodSeconds   float64  `json:"period_seconds"`
	Phase           float64  `json:"phase"`
	TimeLeftSeconds float64  `json:"time_left_seconds"`
	Share           float64  `json:"share"` // of the device's time, while it collects
	FillPerSecond   float64  `json:"fill_segments_per_second"`
	Totals          GCTotals `json:"totals"`
	Recent          []GCRun  `json:"recent"` // newest last
	LastError       string   `json:"last_error,omitempty"`
}

// GCTotals count since the server started.
type GCTotals struct {
	Early      uint64  `json:"early"`
	Forced     uint64  `json:"forced"`
	Manual     uint64  `json:"manual"`
	Segments   uint64  `json:"segments"`
	MovedBytes int64   `json:"moved_bytes"`
	Errors     uint64  `json:"errors"`
	Seconds    float64 `json:"seconds"`
}

// GCRun is one finished collection.
type GCRun struct {
	Reason     string    `json:"reason"`
	Began      time.Time `json:"began"`
	Seconds    float64   `json:"seconds"`
	Segments   int       `json:"segments"`
	MovedBytes int64     `json:"moved_bytes"`
}

// GCRunRequest asks for a collection now, of one device or of all ("").
type GCRunRequest struct {
	Device string `json:"device"`
}

// GCChange changes settings, of one device or those of all ("").
type GCChange struct {
	Device string            `json:"device"`
	Set    map[string]string `json:"set"` // by setting; "" goes back to the default
}

// Counters count since the server started, unless they say otherwise.
type Counters struct {
	UserBytes      uint64 // appended to the log for clients
	CollectedBytes uint64 // appended by garbage collection
	OverheadBytes  uint64 // headers and padding
	Records        uint64

	Checkpoints       uint64
	CheckpointSeconds float64
	Syncs             uint64
	ChecksumErrors    uint64
	BlocksRepaired    uint64
	BlocksRebuilt     uint64
	OtherReads        uint64
	LogBehindBytes    int64 // of log that recovery would scan now

	MapCacheBytes      int64 // in use now
	MapCacheLimitBytes int64
	MapCacheHits       uint64
	MapCacheMisses     uint64
	MapViewsKept       uint64
	MapViewsUsed       uint64
	MapViewsOutdated   uint64

	NBDAccepted      uint64
	NBDRefused       uint64
	NBDBadHandshakes uint64
	NBDStalled       uint64
	NBDBufferBytes   int64 // in use now

	WriteWaits []WriteWait
}

// WriteWait is how long writers had to wait for one cause that is not the devices.
type WriteWait struct {
	Cause      string // room, pace, map
	Count      uint64
	Seconds    float64
	Cumulative map[float64]uint64 // waits of at most so many seconds
}
