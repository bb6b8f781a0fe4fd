package admin

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// newRegistry has every metric of the server.
func newRegistry(cfg *Config) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&exporter{cfg},
	)
	return reg
}

// exporter reads the array's counters when it is asked, so that counting costs the data path nothing more.
type exporter struct{ cfg *Config }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("lsad_"+name, help, labels, nil)
}

var (
	descInfo = desc("build_info", "Always 1; the version is a label.", "version")

	descOps    = desc("io_requests_total", "Requests of clients answered.", "volume", "operation")
	descErrors = desc("io_errors_total", "Requests of clients answered with an error.", "volume", "operation")
	descBytes  = desc("io_bytes_total", "Bytes that requests of clients read, wrote, trimmed or zeroed.", "volume", "operation")
	descTime   = desc("io_latency_seconds", "Time from reading a request to its reply being ready.", "volume", "operation")

	descVolumeSize   = desc("volume_size_bytes", "Size of a volume as clients see it.", "volume")
	descVolumeMapped = desc("volume_mapped_bytes", "Bytes that a volume maps itself and shares with no snapshot.", "volume")
	descVolumeConns  = desc("volume_clients", "Clients that have a volume open.", "volume")

	descSegments = desc("device_segments", "Segments of a device by state: unused, open, sealed with live blocks, or emptied (unused after the next checkpoint).", "device", "slot", "state")
	descDevSize  = desc("device_size_bytes", "Size of a device.", "device", "slot")
	descDevLive  = desc("device_live_bytes", "Bytes on a device that the map refers to.", "device", "slot")
	descDevUp    = desc("device_in_service", "1 while a device is read and written, 0 while it is out of service.", "device", "slot")

	descMeta = desc("metadata_in_service", "1 while a directory of the array's metadata is in service, 0 while it fails, or the other one serves alone.", "dir")

	descLog = desc("log_bytes_total", "Bytes appended to the log: for clients, by garbage collection, headers and padding.", "kind")

	descWaits = desc("write_wait_seconds", "Waits of writers inside the array: for room that collection makes, slowed since room is short (pace), for the map's checkpoint.", "cause")

	descRecovery     = desc("recovery_seconds", "How long opening the array took at the last start.")
	descRecoveryLog  = desc("recovery_log_bytes", "Bytes of log that the last start scanned.")
	descRecoveryRecs = desc("recovery_records", "Records that the last start replayed.")
	descRecoveryOK   = desc("recovery_clean", "1 if the array had been closed in order before the last start.")

	descGCRuns     = desc("gc_collections_total", "Finished collections of a device, by what started them.", "device", "reason")
	descGCSegments = desc("gc_segments_total", "Segments collected.", "device")
	descGCMoved    = desc("gc_moved_bytes_total", "Live bytes that collections moved.", "device")
	descGCErrors   = desc("gc_errors_total", "Segments that could not be collected.", "device")
	descGCTime     = desc("gc_seconds_total", "Time spent in collections.", "device")
	descGCBusy     = desc("gc_collecting", "1 while a device collects.", "device")
	descGCUnused   = desc("gc_unused_segments", "Segments that are unused or will be after the next checkpoint.", "device")
	descGCLimit    = desc("gc_threshold_segments", "Thresholds of a device.", "device", "threshold")
	descGCLeft     = desc("gc_time_left_seconds", "Time until a device's turn.", "device")
)

// Describe says nothing, which makes this an unchecked collector: which volumes and devices there are changes.
func (e *exporter) Describe(chan<- *prometheus.Desc) {}

// emitter sends samples.
type emitter chan<- prometheus.Metric

func (m emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	m <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (m emitter) counter(d *prometheus.Desc, v float64, labels ...string) {
	m <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

// Collect implements prometheus.Collector.
func (e *exporter) Collect(ch chan<- prometheus.Metric) {
	m := emitter(ch)
	status := e.cfg.Array.Status()
	m.gauge(descInfo, 1, status.Version)
	m.scalars(&status, e.cfg.Array.Counters())
	m.volumes(e.cfg.Array.Volumes())
	m.devices(status.Devices)
	for _, d := range status.Metadata {
		m.gauge(descMeta, flag(d.InService), d.Dir)
	}
	m.recovery(&status.Recovery)
	if e.cfg.IO != nil {
		m.io(e.cfg.IO.samples())
	}
	if e.cfg.Images != nil {
		m.images(e.cfg.Images.Images(), e.cfg.Images.ImageCounters())
	}
	if e.cfg.Collector != nil {
		m.gc(e.cfg.Collector.GCStatus())
	}
}

func (m emitter) scalars(s *Status, c Counters) {
	for kind, v := range map[string]uint64{"user": c.UserBytes, "collected": c.CollectedBytes, "overhead": c.OverheadBytes} {
		m.counter(descLog, float64(v), kind)
	}
	for _, w := range c.WriteWaits {
		m <- prometheus.MustNewConstHistogram(descWaits, w.Count, w.Seconds, w.Cumulative, w.Cause)
	}
	for _, x := range []struct {
		name, help string
		counter    bool
		value      float64
	}{
		{"array_size_bytes", "Capacity of the array.", false, float64(s.SizeBytes)},
		{"array_used_bytes", "Live data in the array.", false, float64(s.UsedBytes)},
		{"array_free_bytes", "What can still be written before the array is full.", false, float64(s.FreeBytes)},
		{"array_healthy", "1 while the array serves reads and writes and lacks nothing: no device, no metadata directory, no second copy.", false, flag(s.State == "serving")},
		{"log_records_total", "Records appended to the log.", true, float64(c.Records)},
		{"log_behind_checkpoint_bytes", "Bytes of log that recovery would scan after a crash now.", false, float64(c.LogBehindBytes)},
		{"log_committed_lsn", "Log sequence number of the newest change acknowledged.", false, float64(s.LSN.Committed)},
		{"log_durable_lsn", "Log sequence number up to which power loss loses nothing.", false, float64(s.LSN.Durable)},
		{"log_checkpoint_lsn", "Log sequence number from which recovery would replay.", false, float64(s.LSN.Checkpoint)},
		{"checkpoints_total", "Checkpoints of the map.", true, float64(c.Checkpoints)},
		{"checkpoint_seconds_total", "Time spent in checkpoints.", true, c.CheckpointSeconds},
		{"syncs_total", "Rounds of syncing devices; one answers the flushes of many clients.", true, float64(c.Syncs)},
		{"checksum_errors_total", "Blocks that failed verification.", true, float64(c.ChecksumErrors)},
		{"blocks_repaired_total", "Bad copies of blocks written anew from the other copy.", true, float64(c.BlocksRepaired)},
		{"blocks_rebuilt_total", "Blocks that got a second copy again.", true, float64(c.BlocksRebuilt)},
		{"reads_of_other_copy_total", "Reads that took the other copy, since the one was bad or away.", true, float64(c.OtherReads)},
		{"map_cache_bytes", "Memory that the map cache uses.", false, float64(c.MapCacheBytes)},
		{"map_cache_limit_bytes", "Memory that the map cache may use.", false, float64(c.MapCacheLimitBytes)},
		{"map_cache_hits_total", "Lookups answered from the map cache.", true, float64(c.MapCacheHits)},
		{"map_cache_misses_total", "Lookups that needed the metadata store.", true, float64(c.MapCacheMisses)},
		{"map_views_kept_total", "Pages of the map kept as volumes on many snapshots show them.", true, float64(c.MapViewsKept)},
		{"map_views_used_total", "Lookups that read a kept page in place of one for each snapshot.", true, float64(c.MapViewsUsed)},
		{"map_views_outdated_total", "Kept pages not used, since collections moved what they refer to.", true, float64(c.MapViewsOutdated)},
		{"nbd_connections", "NBD connections open.", false, float64(s.Connections)},
		{"nbd_connections_accepted_total", "NBD connections begun.", true, float64(c.NBDAccepted)},
		{"nbd_connections_refused_total", "NBD connections closed at once because there were too many.", true, float64(c.NBDRefused)},
		{"nbd_handshake_errors_total", "NBD connections that broke the protocol before they had an export.", true, float64(c.NBDBadHandshakes)},
		{"nbd_connections_stalled_total", "NBD connections dropped because the client did not get ahead.", true, float64(c.NBDStalled)},
		{"nbd_buffer_bytes", "Memory in use for the payload of NBD requests.", false, float64(c.NBDBufferBytes)},
	} {
		d := desc(x.name, x.help)
		if x.counter {
			m.counter(d, x.value)
		} else {
			m.gauge(d, x.value)
		}
	}
}

func (m emitter) volumes(all []Volume) {
	for _, v := range all {
		m.gauge(descVolumeSize, float64(v.SizeBytes), v.Name)
		m.gauge(descVolumeMapped, float64(v.MappedBytes), v.Name)
		m.gauge(descVolumeConns, float64(len(v.Clients)), v.Name)
	}
}

// stateGone is the state of a device that was removed, or that the array goes on
// without.
const stateGone = "gone"

func (m emitter) devices(all []Device) {
	for _, d := range all {
		if d.State == stateGone {
			continue // for good: nobody is to be alarmed by it for ever
		}
		slot := strconv.Itoa(d.Slot)
		for state, n := range map[string]int{"unused": d.Unused, "open": d.Open, "sealed": d.Sealed - d.Emptied, "emptied": d.Emptied} {
			m.gauge(descSegments, float64(n), d.Name, slot, state)
		}
		m.gauge(descDevSize, float64(d.SizeBytes), d.Name, slot)
		m.gauge(descDevLive, float64(d.LiveBytes), d.Name, slot)
		m.gauge(descDevUp, flag(d.InService), d.Name, slot)
	}
}

func (m emitter) recovery(r *Recovery) {
	m.gauge(descRecovery, r.Seconds)
	m.gauge(descRecoveryLog, float64(r.Bytes))
	m.gauge(descRecoveryRecs, float64(r.Records))
	m.gauge(descRecoveryOK, flag(r.Clean))
}

func (m emitter) io(all []opSample) {
	for _, o := range all {
		m.counter(descOps, float64(o.count), o.volume, o.op)
		m.counter(descErrors, float64(o.errors), o.volume, o.op)
		m.counter(descBytes, float64(o.bytes), o.volume, o.op)
		m <- prometheus.MustNewConstHistogram(descTime, o.count, o.seconds, o.cumulative, o.volume, o.op)
	}
}

func (m emitter) gc(all []GCDevice) {
	for _, d := range all {
		for reason, n := range map[string]uint64{"early": d.Totals.Early, "forced": d.Totals.Forced, "manual": d.Totals.Manual} {
			m.counter(descGCRuns, float64(n), d.Device, reason)
		}
		for limit, n := range map[string]int{"low": d.Low, "high": d.High, "alt_low": d.AltLow, "alt_high": d.AltHigh} {
			m.gauge(descGCLimit, float64(n), d.Device, limit)
		}
		m.counter(descGCSegments, float64(d.Totals.Segments), d.Device)
		m.counter(descGCMoved, float64(d.Totals.MovedBytes), d.Device)
		m.counter(descGCErrors, float64(d.Totals.Errors), d.Device)
		m.counter(descGCTime, d.Totals.Seconds, d.Device)
		m.gauge(descGCBusy, flag(d.State != "none"), d.Device)
		m.gauge(descGCUnused, float64(d.Unused+d.Pending), d.Device)
		m.gauge(descGCLeft, d.TimeLeftSeconds, d.Device)
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
