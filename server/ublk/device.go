package ublk

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxRequest is the longest read or write, in bytes. Longer ones come in parts.
const maxRequest = 512 << 10

// Device is a block device that this process serves.
type Device struct {
	info     Info
	readOnly bool
	size     int64
	export   Export
	recorder Recorder
	log      *slog.Logger

	tuned  chan struct{} // closed at the end of tune; nil if nothing is tuned
	char   int           // /dev/ublkcN
	queues []*queue
	wg     sync.WaitGroup

	failed   chan struct{} // closed when a queue ended by an error
	failure  error         // what it was
	failing  sync.Once
	ending   sync.Mutex
	settling sync.WaitGroup // tune, and what settle left behind
	stuck    atomic.Bool    // the device failed, and one of these waits for it
}

// ID is the number in the device's name.
func (d *Device) ID() int { return d.info.ID }

// Path is the device's name, such as /dev/ublkb0.
func (d *Device) Path() string { return blockPath(d.info.ID) }

// Queues and Depth are what the device has; the kernel may have made fewer queues than were asked for.
func (d *Device) Queues() int { return d.info.Queues }

// Depth is how many requests each queue has under way.
func (d *Device) Depth() int { return d.info.Depth }

// ReadOnly says whether the kernel refuses writes.
func (d *Device) ReadOnly() bool { return d.readOnly }

// Size in bytes, as the kernel knows it.
func (d *Device) Size() int64 { return d.size }

// newDevice holds what a device is made of. It has nothing open yet.
func newDevice(x Export, o *Options) *Device {
	d := &Device{export: x, recorder: o.Recorder, log: o.Logger, char: -1, failed: make(chan struct{})}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	return d
}

// Add makes a device that serves x. The device closes x when it ends; if Add fails the caller does.
func Add(x Export, o Options) (*Device, error) {
	if o.Queues == 0 {
		o.Queues = DefaultQueues
	}
	if o.Depth == 0 {
		o.Depth = DefaultDepth
	}
	if o.Queues < 1 || o.Queues > MaxQueues || o.Depth < 1 || o.Depth > MaxDepth {
		return nil, fmt.Errorf("%w: %d queues of depth %d; from 1 to %d, and from 1 to %d", ErrInvalid, o.Queues, o.Depth, MaxQueues, MaxDepth)
	}
	d := newDevice(x, &o)
	d.readOnly = o.ReadOnly || x.ReadOnly()
	p := params{sectors: uint64(x.Size()) >> sectorShift, maxSectors: maxRequest >> sectorShift, readOnly: d.readOnly}
	if p.sectors == 0 {
		return nil, fmt.Errorf("%w: a device of %d bytes; it takes a sector of 512 at least", ErrInvalid, x.Size())
	}
	d.size = int64(p.sectors) << sectorShift
	wanted := Info{
		ID: newID, Queues: o.Queues, Depth: o.Depth, PID: -1, Key: o.Key, maxRequest: maxRequest,
		features: featureRecovery | featureRecoveryReissue | featureIoctlEncode | featureUpdateSize,
	}
	buf := wanted.encode()
	if err := command(cmdAdd, control{id: newID}, buf); err != nil {
		return nil, fmt.Errorf("add a ublk device: %w", err)
	}
	d.info.decode(buf)
	if err := d.begin(p); err != nil {
		return nil, errors.Join(err, d.undo())
	}
	d.tuned = make(chan struct{})
	d.settling.Go(d.tune)
	return d, nil
}

// begin brings a device that was added to life.
func (d *Device) begin(p params) error {
	if d.info.features&featureRecoveryReissue == 0 {
		return fmt.Errorf("%s: %w: it cannot let devices outlive their server; it takes Linux 6.1", d.Path(), ErrNoDriver)
	}
	if err := command(cmdSetParams, control{id: uint32(d.info.ID)}, p.encode()); err != nil {
		return fmt.Errorf("%s: set its parameters: %w", d.Path(), err)
	}
	if err := d.open(); err != nil {
		return err
	}
	if err := d.command(cmdStart); err != nil {
		return fmt.Errorf("%s: start it: %w", d.Path(), err)
	}
	return nil
}

// command is one that names this process.
func (d *Device) command(op uint32) error {
	return command(op, control{id: uint32(d.info.ID), data: uint64(os.Getpid())}, nil)
}

// open opens the driver's side of the device and starts the queues.
func (d *Device) open() (err error) {
	if d.char, err = unix.Open(charPath(d.info.ID), unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open %s: %w", charPath(d.info.ID), err)
	}
	ready := make(chan error, d.info.Queues)
	for i := range d.info.Queues {
		q := newQueue(d, i)
		d.queues = append(d.queues, q)
		d.wg.Add(1)
		go func() {
			defer d.wg.Done()
			if err := q.serve(ready); err != nil {
				d.fail(fmt.Errorf("queue %d of %s: %w", q.id, d.Path(), err))
			}
		}()
	}
	var errs []error
	for range d.queues {
		errs = append(errs, <-ready)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: start its queues: %w", d.Path(), err)
	}
	return nil
}

// undo takes back a device that did not come to life. Its export stays open.
func (d *Device) undo() error {
	err := command(cmdStop, control{id: uint32(d.info.ID)}, nil)
	if err != nil {
		for _, q := range d.queues {
			q.leave()
		}
	}
	d.wg.Wait()
	return errors.Join(err, d.closeChar(), remove(d.info.ID))
}

func (d *Device) closeChar() error {
	if d.char < 0 {
		return nil
	}
	err := unix.Close(d.char)
	d.char = -1
	return err
}

// requestTimeout is after how long the kernel looks whether a request that is still under way has lost its server.
// It does not end it. Only where every request of a queue was under way when the server died does it matter: then
// nothing else tells the driver.
const requestTimeout = 3 * time.Second

// tune sets what a device does not need to work; where /sys may not be written it keeps the kernel's default. It
// takes the kernel some 20 ms, in which requests have to be served: it waits for those under way, and holds back new ones.
func (d *Device) tune() {
	defer close(d.tuned)
	path := filepath.Join("/sys/block", filepath.Base(d.Path()), "queue/io_timeout")
	if err := os.WriteFile(path, strconv.AppendInt(nil, requestTimeout.Milliseconds(), 10), 0); err != nil {
		d.log.Debug("the request timeout stays as it is", "device", d.Path(), "error", err)
	}
}

// Resize tells the kernel that the device has another size, in bytes. The error Is ErrNoResize where it cannot.
func (d *Device) Resize(size int64) error {
	if d.info.features&featureUpdateSize == 0 {
		return fmt.Errorf("%s: %w: remove the device and add it again", d.Path(), ErrNoResize)
	}
	c := control{id: uint32(d.info.ID), data: uint64(size) >> sectorShift}
	if err := command(cmdUpdateSize, c, nil); err != nil {
		return fmt.Errorf("resize %s: %w", d.Path(), err)
	}
	d.size = size >> sectorShift << sectorShift
	return nil
}
