package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lsad/lsa"
	"lsad/server/admin"
	"lsad/server/nbd"
	"lsad/server/ublk"
)

// localDisks are the volumes that are block devices of this machine, through ublk.
type localDisks struct {
	server *server
	stats  *admin.IO

	mu      sync.Mutex // held while devices come and go
	devices []localDisk
	closed  bool
}

// localDisk is a device and the name of what it serves when it was made.
type localDisk struct {
	*ublk.Device
	key uint64
}

func newLocalDisks(s *server, stats *admin.IO) *localDisks {
	return &localDisks{server: s, stats: stats}
}

// takeOverTime is how long a start waits for the kernel to be done with a server that was killed.
const takeOverTime = time.Minute

// startDisks takes over the devices of a server that is gone, and makes those that the settings name.
func (s *server) startDisks(ctx context.Context) error {
	l := s.disks
	s.ends.add(l.stop)
	ctx, cancel := context.WithTimeoutCause(ctx, takeOverTime, errors.New("it took too long"))
	defer cancel()
	if err := l.takeOver(ctx); err != nil {
		return err
	}
	for _, name := range s.cfg.Ublk {
		if l.serves(name) {
			continue
		}
		d, err := l.AddUblk(ctx, admin.AddUblk{Volume: name})
		if err != nil {
			return fmt.Errorf("ublk %s: %w", name, err)
		}
		s.log.Info("a volume is a local disk", "volume", name, "device", d.Path)
	}
	return nil
}

// keyFor is what a device of a volume or snapshot carries in the kernel: which array, and which of its volumes. It
// stays the same when a volume is renamed.
func (l *localDisks) keyFor(volume uint64, snapshot string) uint64 {
	return uint64(l.arrayKey())<<32 | uint64(hash32(strconv.FormatUint(volume, 10)+"@"+snapshot))
}

func (l *localDisks) arrayKey() uint32 { return hash32(l.server.array.Status().Array) }

func hash32(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s)) // it returns no errors
	return h.Sum32()
}

// nameOf is the volume or snapshot that a key means, "" if there is none.
func (l *localDisks) nameOf(key uint64) string {
	for _, v := range l.server.array.Volumes() {
		if l.keyFor(v.ID, "") == key {
			return v.Name
		}
		for _, s := range v.Snapshots {
			if l.keyFor(v.ID, s.Name) == key {
				return v.Name + "@" + s.Name
			}
		}
	}
	return ""
}

// keyOf is the key of a volume or snapshot.
func (l *localDisks) keyOf(name string) (uint64, error) {
	volume, snapshot, _ := strings.Cut(name, "@")
	v, err := l.server.array.Volume(volume)
	if err != nil {
		return 0, err
	}
	key := l.keyFor(v.ID, snapshot)
	if found := l.nameOf(key); found != "" && found != name {
		return 0, fmt.Errorf("%s and %s cannot be told apart in the kernel, which is a chance of one in four thousand millions", name, found)
	}
	return key, nil
}

// ours are the devices in the kernel that belong to this array.
func (l *localDisks) ours() ([]ublk.Info, error) {
	all, err := ublk.Devices()
	mine := l.arrayKey()
	return slices.DeleteFunc(all, func(i ublk.Info) bool { return uint32(i.Key>>32) != mine }), err
}

// takeOver finds the devices of an earlier server and serves them again. One that cannot be taken over is reported,
// and waits: who has it open loses nothing yet.
func (l *localDisks) takeOver(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.server.log
	all, err := l.ours()
	if err != nil {
		log.Warn("could not look for ublk devices of an earlier server", "error", err)
		return nil
	}
	for _, i := range all {
		name := l.nameOf(i.Key)
		path := "/dev/ublkb" + strconv.Itoa(i.ID)
		if i.State == ublk.StateDead || name == "" {
			log.Info("removing a ublk device of an earlier server", "device", path, "state", i.State, "volume", orDash(name))
			if err := ublk.Remove(i.ID); err != nil {
				log.Warn("could not remove a ublk device of an earlier server", "device", path, "error", err)
			}
			continue
		}
		begin := time.Now()
		if err := l.resume(ctx, i, name); err != nil {
			if ctx.Err() != nil && context.Cause(ctx) == context.Canceled {
				return err
			}
			log.Error("a ublk device of an earlier server waits on; lsad ublk del --force removes it", "device", path, "volume", name, "error", err)
			continue
		}
		log.Info("took over a ublk device", "device", path, "volume", name, "seconds", time.Since(begin).Seconds())
	}
	return nil
}

func (l *localDisks) resume(ctx context.Context, i ublk.Info, name string) error {
	x, err := l.open(name, false)
	if err != nil {
		return err
	}
	d, err := ublk.Resume(ctx, i.ID, x, ublk.Options{Recorder: diskRecorder{l.stats.Volume(name)}, Logger: l.server.log})
	if err != nil {
		return errors.Join(err, x.Close())
	}
	l.devices = append(l.devices, localDisk{d, i.Key})
	return nil
}

// open opens a volume for a device. As a client it has a name that says which command gets rid of it.
func (l *localDisks) open(name string, readOnly bool) (*export, error) {
	if err := l.server.isVolume(name); err != nil {
		return nil, err
	}
	h, err := l.server.array.OpenVolume(name, lsa.OpenOptions{Client: "ublk (lsad ublk del " + name + ")", ReadOnly: readOnly})
	if err != nil {
		return nil, err
	}
	return &export{Handle: h, info: nbd.ExportInfo{Name: name}, client: "ublk", errors: &ioLog{log: l.server.log}}, nil
}

func (l *localDisks) serves(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.devices, func(d localDisk) bool { return l.nameOf(d.key) == name })
}

// AddUblk implements admin.LocalDisks.
func (l *localDisks) AddUblk(_ context.Context, q admin.AddUblk) (admin.UblkDevice, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	none := admin.UblkDevice{}
	if l.closed {
		return none, admin.Errorf(admin.CodeClosed, "the server is stopping")
	}
	key, err := l.keyOf(q.Volume)
	if err != nil {
		return none, coded(err)
	}
	for _, d := range l.devices {
		if d.key == key {
			return none, admin.Errorf(admin.CodeExists, "volume %s is %s already", q.Volume, d.Path())
		}
	}
	x, err := l.open(q.Volume, q.ReadOnly)
	if err != nil {
		return none, coded(err)
	}
	d, err := ublk.Add(x, ublk.Options{
		Queues: q.Queues, Depth: q.Depth, ReadOnly: q.ReadOnly, Key: key,
		Recorder: diskRecorder{l.stats.Volume(q.Volume)}, Logger: l.server.log,
	})
	if err != nil {
		return none, codedUblk(errors.Join(err, x.Close()))
	}
	l.devices = append(l.devices, localDisk{d, key})
	l.server.log.Info("added a ublk device", "device", d.Path(), "volume", q.Volume)
	return l.describe(localDisk{d, key}), nil
}

func codedUblk(err error) error {
	switch {
	case errors.Is(err, ublk.ErrInvalid):
		return admin.Wrap(admin.CodeInvalid, err)
	case errors.Is(err, ublk.ErrInUse):
		return admin.Wrap(admin.CodeInUse, err)
	case errors.Is(err, ublk.ErrNotFound):
		return admin.Wrap(admin.CodeNotFound, err)
	case errors.Is(err, ublk.ErrNoDriver), errors.Is(err, ublk.ErrPermission):
		return admin.Wrap(admin.CodeFailed, err)
	}
	return err
}

func (l *localDisks) describe(d localDisk) admin.UblkDevice {
	return admin.UblkDevice{
		ID: d.ID(), Path: d.Path(), Volume: l.nameOf(d.key), SizeBytes: d.Size(), Queues: d.Queues(), Depth: d.Depth(),
		ReadOnly: d.ReadOnly(), State: ublk.StateLive.String(), InUse: d.InUse(),
	}
}

// Ublk implements admin.LocalDisks. Devices that wait for a server are among them.
func (l *localDisks) Ublk() ([]admin.UblkDevice, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []admin.UblkDevice
	for _, d := range l.devices {
		out = append(out, l.describe(d))
	}
	waiting, err := l.ours()
	if err != nil {
		return nil, codedUblk(err)
	}
	for _, i := range waiting {
		if l.index(i.ID) < 0 {
			out = append(out, admin.UblkDevice{
				ID: i.ID, Path: "/dev/ublkb" + strconv.Itoa(i.ID), Volume: l.nameOf(i.Key),
				Queues: i.Queues, Depth: i.Depth, State: i.State.String(),
			})
		}
	}
	slices.SortFunc(out, func(a, b admin.UblkDevice) int { return a.ID - b.ID })
	return out, nil
}

// index finds a device that is served, by number.
func (l *localDisks) index(id int) int {
	return slices.IndexFunc(l.devices, func(d localDisk) bool { return d.ID() == id })
}

// DeleteUblk implements admin.LocalDisks.
func (l *localDisks) DeleteUblk(_ context.Context, name string, force bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, d := range l.devices {
		if d.Path() != name && l.nameOf(d.key) != name {
			continue
		}
		if err := d.Stop(force); err != nil {
			return codedUblk(err)
		}
		l.devices = slices.Delete(l.devices, i, i+1)
		l.server.log.Info("removed a ublk device", "device", d.Path())
		return nil
	}
	return l.deleteWaiting(name, force)
}

// deleteWaiting removes a device that nobody could take over. What waits for it fails.
func (l *localDisks) deleteWaiting(name string, force bool) error {
	all, err := l.ours()
	if err != nil {
		return codedUblk(err)
	}
	for _, i := range all {
		path := "/dev/ublkb" + strconv.Itoa(i.ID)
		if path != name && l.nameOf(i.Key) != name {
			continue
		}
		if !force {
			return admin.Errorf(admin.CodeInUse, "%s has requests that wait for it to be served again; --force removes it and fails them", path)
		}
		return codedUblk(ublk.Remove(i.ID))
	}
	return admin.Errorf(admin.CodeNotFound, "%s is no ublk device of this server; see lsad ublk list", name)
}

// resized tells the kernel of a volume's new size.
func (l *localDisks) resized(name string, size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.devices {
		if l.nameOf(d.key) != name {
			continue
		}
		if err := d.Resize(size); err != nil {
			l.server.log.Warn("a local disk keeps the size it has", "volume", name, "device", d.Path(), "error", err)
		}
	}
}

// stop removes the devices. One that is in use waits for the next server instead: to remove it would lose what its
// file system has not written yet.
func (l *localDisks) stop() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var errs []error
	for _, d := range l.devices {
		err := d.Stop(false)
		if errors.Is(err, ublk.ErrInUse) {
			l.server.log.Warn("a local disk is in use; it waits for the next server", "device", d.Path(), "volume", l.nameOf(d.key))
			err = d.Leave()
		}
		errs = append(errs, err)
	}
	l.devices = nil
	return errors.Join(errs...)
}

// diskRecorder counts requests of a device as those of its volume.
type diskRecorder struct{ *admin.VolumeIO }

var diskOps = [ublk.NumOps]nbd.Op{nbd.OpRead, nbd.OpWrite, nbd.OpFlush, nbd.OpTrim, nbd.OpWriteZeroes}

// Record implements ublk.Recorder.
func (r diskRecorder) Record(op ublk.Op, n int, bytes int64, errors int, latency time.Duration) {
	r.VolumeIO.Record(int(diskOps[op]), n, bytes, errors, latency)
}
