package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
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

	mu     sync.Mutex // guards what follows; not held while the kernel does something to a device
	disks  []*localDisk
	closed bool

	flusher sync.Once
	changes sync.WaitGroup // what is under way; none begins once closed is set
}

// localDisk is one device: one that is served, one that waits to be, or one that is being made.
type localDisk struct {
	key  uint64
	busy string       // what is being done to it, "" for nothing
	dev  *ublk.Device // nil: it is not served

	// Of one that an earlier server left and that is not served:
	waits   *ublk.Info
	hold    *export // keeps its volume from being deleted, reverted or shrunk meanwhile
	problem error   // why it was not taken over
}

func newLocalDisks(s *server, stats *admin.IO) *localDisks {
	return &localDisks{server: s, stats: stats}
}

func blockPath(id int) string { return "/dev/ublkb" + strconv.Itoa(id) }

// path is the device's name, "" while it is being made.
func (d *localDisk) path() string {
	switch {
	case d.dev != nil:
		return d.dev.Path()
	case d.waits != nil:
		return blockPath(d.waits.ID)
	}
	return ""
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

// begin notes that something is being done to a disk, so that nothing else is.
func (l *localDisks) begin(d *localDisk, what string) {
	d.busy = what
	l.changes.Add(1)
}

// end is the end of what begin noted. A disk that is gone is forgotten.
func (l *localDisks) end(d *localDisk, gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.busy = ""
	if gone {
		l.disks = slices.DeleteFunc(l.disks, func(o *localDisk) bool { return o == d })
	}
	l.changes.Done()
}

// find is the disk of a key, or nil. mu is held.
func (l *localDisks) find(key uint64) *localDisk {
	i := slices.IndexFunc(l.disks, func(d *localDisk) bool { return d.key == key })
	if i < 0 {
		return nil
	}
	return l.disks[i]
}

// AddUblk implements admin.LocalDisks.
func (l *localDisks) AddUblk(_ context.Context, q admin.AddUblk) (admin.UblkDevice, error) {
	none := admin.UblkDevice{}
	key, err := l.keyOf(q.Volume)
	if err != nil {
		return none, coded(err)
	}
	d := &localDisk{key: key}
	if err := l.claimNew(d, q.Volume); err != nil {
		return none, err
	}
	dev, err := l.add(key, q)
	if err == nil {
		l.mu.Lock()
		d.dev = dev
		l.mu.Unlock()
	}
	l.end(d, err != nil)
	if err != nil {
		return none, err
	}
	l.server.log.Info("added a ublk device", "device", dev.Path(), "volume", q.Volume)
	return l.describe(d), nil
}

// claimNew puts a disk that is about to be made among the others.
func (l *localDisks) claimNew(d *localDisk, volume string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return admin.Errorf(admin.CodeClosed, "the server is stopping")
	}
	if have := l.find(d.key); have != nil {
		switch {
		case have.dev != nil:
			return admin.Errorf(admin.CodeExists, "volume %s is %s already", volume, have.path())
		case have.waits != nil:
			return admin.Errorf(admin.CodeExists, "volume %s is %s already, which waits for the server to take it over; see lsad ublk list", volume, have.path())
		}
		return admin.Errorf(admin.CodeExists, "volume %s is being made a disk already", volume)
	}
	l.begin(d, "being added")
	l.disks = append(l.disks, d)
	return nil
}

func (l *localDisks) add(key uint64, q admin.AddUblk) (*ublk.Device, error) {
	x, err := l.open(q.Volume, q.ReadOnly)
	if err != nil {
		return nil, coded(err)
	}
	l.flushesIO()
	dev, err := ublk.Add(x, ublk.Options{
		Queues: q.Queues, Depth: q.Depth, ReadOnly: q.ReadOnly, Key: key,
		Recorder: diskRecorder{l.stats.Volume(q.Volume)}, Logger: l.server.log,
	})
	if err != nil {
		return nil, codedUblk(errors.Join(err, x.Close()))
	}
	return dev, nil
}

func codedUblk(err error) error {
	switch {
	case errors.Is(err, ublk.ErrInvalid):
		return admin.Wrap(admin.CodeInvalid, err)
	case errors.Is(err, ublk.ErrInUse), errors.Is(err, ublk.ErrServed):
		return admin.Wrap(admin.CodeInUse, err)
	case errors.Is(err, ublk.ErrNotFound):
		return admin.Wrap(admin.CodeNotFound, err)
	case errors.Is(err, ublk.ErrNoDriver), errors.Is(err, ublk.ErrPermission), errors.Is(err, ublk.ErrFailed):
		return admin.Wrap(admin.CodeFailed, err)
	}
	return err
}

// resized tells the kernel of a volume's new size.
func (l *localDisks) resized(name string, size int64) {
	l.mu.Lock()
	var devs []*ublk.Device
	for _, d := range l.disks {
		if d.dev != nil && l.nameOf(d.key) == name {
			devs = append(devs, d.dev)
		}
	}
	l.mu.Unlock()
	for _, dev := range devs {
		l.resize(dev, name, size)
	}
}

func (l *localDisks) resize(dev *ublk.Device, name string, size int64) {
	if err := dev.Resize(size); err != nil {
		l.server.log.Warn("a local disk keeps the size it has", "volume", name, "device", dev.Path(), "error", err)
	}
}

// diskRecorder counts requests of a device as those of its volume.
type diskRecorder struct{ *admin.VolumeIO }

var diskOps = [ublk.NumOps]nbd.Op{nbd.OpRead, nbd.OpWrite, nbd.OpFlush, nbd.OpTrim, nbd.OpWriteZeroes}

// Record implements ublk.Recorder.
func (r diskRecorder) Record(op ublk.Op, n int, bytes int64, errors int, latency time.Duration) {
	r.VolumeIO.Record(int(diskOps[op]), n, bytes, errors, latency)
}
