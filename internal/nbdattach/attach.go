package nbdattach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"syscall"
	"time"

	"lsad/internal/nbdclient"
)

// Limits and defaults of Options.
const (
	MaxConnections     = 16
	DefaultConnections = 2
	DefaultTimeout     = 5 * time.Minute
	// requestTimeout is after how long the kernel gives up a connection that does not answer, and issues the
	// request again on another. It is also how long what was under way when a server died takes to be issued
	// again. Longer than lsad ever holds a writer back.
	requestTimeout = 15 * time.Second
)

// Options of an attachment.
type Options struct {
	Target nbdclient.Target
	URI    string // of the target, for people
	// Device is the number to use, negative for any. One that is attached to the same export of the same incarnation
	// already, and that nobody watches, is taken over; else any is one that is free.
	Device      int
	Connections int           // from 1 to MaxConnections; 0 is DefaultConnections. A device taken over keeps its own
	Timeout     time.Duration // how long requests wait for a server that is gone; 0 is DefaultTimeout
	Logger      *slog.Logger
}

// Attachment is a device that this process keeps connected.
type Attachment struct {
	o         Options
	log       *slog.Logger
	index     int
	backend   backend
	blockSize int
	size      int64     // that the kernel has
	wanted    int64     // that the server has; see grow
	since     time.Time // of the present connections
	lock      *os.File
	driver    *driver       // for commands
	events    *driver       // where broken connections are told
	broken    chan struct{} // has one while there may be connections to replace
}

// Attach connects a device. The caller calls Run, which closes the attachment at its end, or Close.
func Attach(ctx context.Context, o Options) (a *Attachment, err error) {
	if o.Connections == 0 {
		o.Connections = DefaultConnections
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Target.TLS {
		return nil, fmt.Errorf("%s: %w; use a tunnel, or a unix socket", o.URI, ErrTLS)
	}
	a = &Attachment{o: o, log: o.Logger, index: o.Device, broken: make(chan struct{}, 1)}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
			a = nil
		}
	}()
	if a.driver, err = openDriver(); err != nil {
		return a, err
	}
	if a.events, err = openDriver(); err != nil {
		return a, err
	}
	if err = a.events.subscribe(); err != nil {
		return a, err
	}
	return a, a.connect(ctx)
}

// connect makes the device, or takes it over.
func (a *Attachment) connect(ctx context.Context) error {
	if a.index >= 0 {
		lock, err := watch(a.index) // before anything is changed
		if err != nil {
			return err
		}
		a.lock = lock
	}
	conns, info, err := a.dial(ctx, a.o.Connections)
	if err != nil {
		return err
	}
	defer func() { closeAll(conns) }()
	a.backend = backend{a.o.Connections, incarnation(info), a.o.URI}
	conns, adopted, err := a.adopt(ctx, conns, info)
	if adopted || err != nil {
		return err
	}
	v := a.device(conns, info)
	if a.index, err = a.driver.connect(v); err != nil {
		return err
	}
	a.blockSize, a.size, a.wanted = v.blockSize, v.size, v.size
	if readSys(a.index, "backend") != a.backend.String() {
		err = fmt.Errorf("%w: it does not keep what a device is attached to; it takes Linux 5.14", ErrNoDriver)
	} else if a.lock == nil {
		a.lock, err = watchNew(a.index)
	}
	if errors.Is(err, ErrWatched) { // another lsad attach took it over before it was locked: it is that one's
		a.index = -1
		return a.connect(ctx)
	}
	if err != nil {
		err = errors.Join(err, a.driver.disconnect(a.index)) // nobody knows of it yet
	}
	return err
}

func (a *Attachment) device(conns []net.Conn, info nbdclient.Info) *device {
	block := max(leastBlock, int(info.MinBlock))
	return &device{
		index: a.index, size: info.Size / int64(block) * int64(block), blockSize: block, flags: info.Flags, timeout: requestTimeout, deadTimeout: a.o.Timeout,
		backend: a.backend.String(), sockets: descriptors(conns),
	}
}

// Path is the device's name, such as /dev/nbd0.
func (a *Attachment) Path() string { return path(a.index) }

// Size in bytes.
func (a *Attachment) Size() int64 { return a.size }

// Close ends watching. The device stays as it is.
func (a *Attachment) Close() error {
	var errs []error
	for _, d := range []*driver{a.driver, a.events} {
		if d != nil {
			errs = append(errs, d.close())
		}
	}
	if a.lock != nil {
		errs = append(errs, a.lock.Close())
	}
	a.driver, a.events, a.lock = nil, nil, nil
	return errors.Join(errs...)
}

// dial makes connections to the export, negotiated, all to the same incarnation of it.
func (a *Attachment) dial(ctx context.Context, n int) (conns []net.Conn, first nbdclient.Info, err error) {
	for i := range n {
		info, err := a.o.Target.Connect(ctx, nbdclient.Options{})
		if err == nil && i > 0 && incarnation(info) != incarnation(first) {
			err = errors.Join(a.changed(), info.Conn.Close())
		}
		if err != nil {
			closeAll(conns)
			return nil, first, err
		}
		if i == 0 {
			first = info
		}
		conns = append(conns, info.Conn)
	}
	return conns, first, nil
}

func (a *Attachment) changed() error {
	return fmt.Errorf("%s: %w: it changed between two connections", a.o.URI, ErrChanged)
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close() // the kernel has its own reference, or there is nothing to lose
	}
}

// descriptors of sockets, which stay the connections'.
func descriptors(conns []net.Conn) []int {
	var all []int
	for _, c := range conns {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { all = append(all, int(fd)) })
		}
		if err != nil {
			return nil // it was closed, and the kernel will say that there is no socket
		}
	}
	return all
}

var incarnationText = regexp.MustCompile(`\bincarnation ([0-9a-f-]{8,64})\b`)

// unknownIncarnation is that of a server that tells none.
const unknownIncarnation = "-"

// incarnation is what the server tells in the description of the export.
func incarnation(info nbdclient.Info) string {
	if m := incarnationText.FindStringSubmatch(info.Description); m != nil {
		return m[1]
	}
	return unknownIncarnation
}
