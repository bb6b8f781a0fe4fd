package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"time"

	"lsad/lsa"
	"lsad/lsa/format"
	"lsad/memsvc"
	"lsad/memsvc/qemu"
	"lsad/server/admin"
)

// backend is the array, and the server around it, as the administration sees them.
type backend struct {
	server *server
	stats  *admin.IO
}

var codes = []struct {
	err  error
	code admin.Code
}{
	{lsa.ErrNotFound, admin.CodeNotFound},
	{lsa.ErrExists, admin.CodeExists},
	{lsa.ErrInUse, admin.CodeInUse},
	{lsa.ErrNoSpace, admin.CodeNoSpace},
	{lsa.ErrReadOnly, admin.CodeReadOnly},
	{lsa.ErrInvalid, admin.CodeInvalid},
	{lsa.ErrDamaged, admin.CodeDamaged},
	{lsa.ErrGap, admin.CodeDamaged},
	{lsa.ErrFailed, admin.CodeFailed},
	{lsa.ErrClosed, admin.CodeClosed},

	{memsvc.ErrNotFound, admin.CodeNotFound},
	{memsvc.ErrExists, admin.CodeExists},
	{memsvc.ErrInUse, admin.CodeInUse},
	{memsvc.ErrRunning, admin.CodeInvalid},
	{memsvc.ErrInvalid, admin.CodeInvalid},
	{memsvc.ErrDamaged, admin.CodeDamaged},
	{memsvc.ErrClosed, admin.CodeClosed},
	{errNeedsFork, admin.CodeInvalid},
	{qemu.ErrUnsupported, admin.CodeInvalid},
	{qemu.ErrMalformed, admin.CodeInvalid},
	{fs.ErrNotExist, admin.CodeNotFound},
	{fs.ErrPermission, admin.CodeInvalid},
}

// coded gives an error of the array the code that it has in the API.
func coded(err error) error {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return admin.Wrap(c.code, err)
		}
	}
	return err
}

// Status implements admin.Array.
func (b *backend) Status() admin.Status {
	s := b.server
	st := s.array.Status()
	out := admin.Status{
		Version: version(), PID: os.Getpid(), Started: s.started, UptimeSeconds: time.Since(s.started).Seconds(),
		Dir:   s.dir.path,
		State: "serving", SizeBytes: st.Capacity, UsedBytes: st.Used, FreeBytes: st.Free,
		Connections: len(s.nbd.Connections()),
		LSN:         admin.LSNs{Committed: st.Committed, Durable: st.Durable, Checkpoint: st.Checkpoint},
		Devices:     devicesOf(st.Devices),
		Metadata:    s.metaDirs(st.StoreFailure),
		Recovery:    recoveryOf(s.array.Recovery(), s.plan.create),
		Listen:      admin.Listen{NBD: listening(s.nbdOn), Admin: listening(s.adminOn), HTTP: listening(s.httpOn)},
	}
	if err := errors.Join(healthOf(&st), s.deviceHealth(), s.metaHealth()); err != nil {
		out.State, out.Problem = "degraded", err.Error()
		if st.Failure != "" {
			out.State = "failed"
		}
	}
	for _, v := range b.Volumes() {
		out.Volumes++
		out.Snapshots += len(v.Snapshots)
	}
	return out
}

// Health implements admin.Array.
func (b *backend) Health() error {
	st := b.server.array.Status()
	return errors.Join(healthOf(&st), b.server.deviceHealth(), b.server.metaHealth())
}

// healthOf says what keeps the array from serving as it should.
func healthOf(st *lsa.Status) error {
	if st.Failure != "" {
		return errors.New(st.Failure)
	}
	for _, d := range st.Devices {
		switch d.State {
		case format.DeviceInService.String(), format.DeviceGone.String(), "removing":
		default:
			return errors.New("device " + deviceName(&d) + " is " + d.State)
		}
		if d.StoreLow {
			return errors.New("the file system of the metadata is full, or nearly so")
		}
		if d.HostFull {
			return errors.New("the file system below device " + deviceName(&d) + " is full")
		}
	}
	if st.ReadOnly {
		return errors.New("the array is read-only")
	}
	if st.OneCopy != "" {
		return errors.New(st.OneCopy)
	}
	return nil
}

func deviceName(d *lsa.DeviceInfo) string {
	if d.Name != "" {
		return d.Name
	}
	return d.ID
}

func listening(all []net.Listener) []string {
	list := []string{}
	for _, l := range all {
		list = append(list, addrOf(l).String())
	}
	return list
}

func devicesOf(all []lsa.DeviceInfo) []admin.Device {
	var out []admin.Device
	for _, d := range all {
		out = append(out, admin.Device{
			Slot: d.Slot, Name: deviceName(&d), ID: d.ID, State: d.State, InService: d.State == format.DeviceInService.String(),
			SizeBytes: d.Size, LiveBytes: d.LiveBytes,
			Segments: d.Segments, Unused: d.Unused, Open: d.Open, Sealed: d.Sealed, Emptied: d.Emptied,
		})
	}
	return out
}

func recoveryOf(r lsa.RecoveryReport, made bool) admin.Recovery {
	out := admin.Recovery{
		New: made, Clean: r.Clean, Seconds: r.Took.Seconds(), Records: r.Records, Discarded: r.Discarded, Damaged: r.Damaged,
		Bytes: r.Bytes, CutLSN: r.CutLSN, Steps: []admin.RecoveryStep{},
	}
	for _, s := range r.Steps {
		out.Steps = append(out.Steps, admin.RecoveryStep{Name: s.Name, Detail: s.Detail, Seconds: s.Took.Seconds()})
	}
	return out
}

// Counters implements admin.Array.
func (b *backend) Counters() admin.Counters {
	m, n := b.server.array.Metrics(), b.server.nbd.Stats()
	return admin.Counters{
		UserBytes: uint64(m.UserBytes), CollectedBytes: uint64(m.MovedBytes), OverheadBytes: uint64(m.OverheadBytes), Records: uint64(m.Appends),
		Checkpoints: uint64(m.Checkpoints), CheckpointSeconds: m.CheckpointFor.Seconds(), Syncs: uint64(m.Syncs),
		ChecksumErrors: uint64(m.DamagedReads), BlocksRepaired: uint64(m.Repaired), BlocksRebuilt: uint64(m.Rebuilt), OtherReads: uint64(m.OtherReads),
		LogBehindBytes: m.LogBytes,
		MapCacheBytes:  m.MapCache.Bytes, MapCacheLimitBytes: m.MapCache.Budget,
		MapCacheHits: uint64(m.MapCache.Hits), MapCacheMisses: uint64(m.MapCache.Misses),
		MapViewsKept: uint64(m.MapCache.ViewsKept), MapViewsUsed: uint64(m.MapCache.ViewsUsed), MapViewsOutdated: uint64(m.MapCache.ViewsOutdated),
		NBDAccepted: n.Accepted, NBDRefused: n.Refused, NBDBadHandshakes: n.BadHandshakes, NBDStalled: n.Stalled, NBDBufferBytes: n.BufferBytes,
		WriteWaits: writeWaits(b.server.array.Waits()),
	}
}

func writeWaits(all []lsa.Waits) []admin.WriteWait {
	var out []admin.WriteWait
	for _, w := range all {
		x := admin.WriteWait{Cause: w.Cause.String(), Seconds: w.Time.Seconds(), Cumulative: map[float64]uint64{}}
		for i, n := range w.Count {
			if x.Count += n; i < len(lsa.WaitBounds) {
				x.Cumulative[lsa.WaitBounds[i].Seconds()] = x.Count
			}
		}
		out = append(out, x)
	}
	return out
}

// Devices implements admin.Array.
func (b *backend) Devices() []admin.Device {
	all, misplaced := devicesOf(b.server.array.Devices()), b.server.misplaced()
	for i := range all {
		if err := misplaced[all[i].Name]; err != nil {
			all[i].Problem = err.Error()
		}
	}
	return all
}

// Connections implements admin.Array.
func (b *backend) Connections() []admin.Connection {
	var out []admin.Connection
	for _, c := range b.server.nbd.Connections() {
		out = append(out, admin.Connection{
			ID: c.ID, Client: c.Client.Addr, Certificate: c.Client.Name, TLS: c.Client.TLS, Export: c.Export, ReadOnly: c.ReadOnly,
			Since: c.Since, InFlight: c.InFlight, BytesReceived: c.BytesIn, BytesSent: c.BytesOut,
		})
	}
	return out
}
