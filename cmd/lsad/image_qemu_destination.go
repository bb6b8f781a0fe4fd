package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/memsvc/qemu"
	"lsad/memsvc/qemu/qmp"
)

// destination is a QEMU that waits for a VM, or that has one and has lost its source.
type destination struct {
	to      config.Addr
	socket  string             // of its monitor; "": somebody else tells it to listen
	monitor *qmp.Client        // nil: not open
	opening <-chan *qmp.Client // if not nil it gives the monitor, or nil; stop has it give up
	stop    context.CancelFunc
	qemu    *qemu.Receiver // that of monitor
	fresh   bool           // it has not been told to listen yet
	lost    bool           // it has to be told to listen again
	left    bool           // it may listen, as leave has left it
}

// connect prepares a destination. Without an address it listens beside its monitor.
func connect(ctx context.Context, to, socket string, resume bool) (*destination, error) {
	if to == "" && socket != "" {
		to = "unix:" + socket + ".incoming"
	}
	a, err := absoluteAddr(to)
	if err != nil {
		return nil, err
	}
	d := &destination{to: a, socket: socket, lost: resume, left: resume && socket != ""}
	if socket == "" {
		return d, nil
	}
	if resume {
		return d, d.open(ctx)
	}
	if d.monitor, err = qmp.Dial(ctx, "unix", socket); err != nil {
		return nil, err
	}
	d.qemu, d.fresh = qemu.Found(d.monitor, qemuURI(a)), true
	return d, nil
}

// open opens the monitor, which is answered beside what follows: a QEMU that waits for memory may have to get that first.
func (d *destination) open(ctx context.Context) error {
	m, err := qmp.Connect(ctx, "unix", d.socket)
	if err != nil {
		return err
	}
	c := make(chan *qmp.Client, 1)
	ctx, d.stop = context.WithCancel(ctx)
	go func() {
		if m.Negotiate(ctx) != nil { // recover tries again, and says why not
			m.Close()
			m = nil
		}
		c <- m
	}()
	d.opening = c
	return nil
}

// has takes the monitor that was being opened.
func (d *destination) has() {
	if d.opening == nil {
		return
	}
	if d.monitor = <-d.opening; d.monitor != nil {
		d.qemu = qemu.Found(d.monitor, qemuURI(d.to))
	}
	d.stop()
	d.opening = nil
}

func (d *destination) close() {
	if d.opening != nil {
		d.stop()
		d.has()
	}
	if d.monitor != nil {
		d.monitor.Close()
	}
}

// dial connects; the first time as it is, later after a loss.
func (d *destination) dial(ctx context.Context) (_ net.Conn, err error) {
	if d.fresh { // not before: it can be told once, and what is wrong at the source should not cost it
		d.fresh = false
		d.qemu, err = qemu.Receive(ctx, d.monitor, qemuURI(d.to))
		if errors.Is(err, qmp.ErrClosed) {
			return nil, fmt.Errorf("%w: %v", qemu.ErrEnded, err) // it is not the source that has
		}
		if err != nil {
			return nil, err
		}
	}
	if d.left {
		d.left = false
		if conn, err := dialer(d.to)(ctx); err == nil {
			return conn, nil
		}
	}
	var again error
	if d.socket != "" && d.lost {
		again = d.recover(ctx) // it may listen already
		if errors.Is(again, qemu.ErrEnded) || errors.Is(again, qemu.ErrComplete) {
			return nil, again
		}
	}
	conn, err := dialer(d.to)(ctx)
	if err != nil {
		return nil, errors.Join(again, err)
	}
	d.lost = true
	return conn, nil
}

// recover has the destination listen again.
func (d *destination) recover(ctx context.Context) (err error) {
	d.has()
	if d.monitor == nil {
		if d.monitor, err = qmp.Dial(ctx, "unix", d.socket); err != nil {
			if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: %w", qemu.ErrEnded, err) // it was there before
			}
			d.monitor = nil
			return err
		}
		d.qemu = qemu.Found(d.monitor, qemuURI(d.to))
	}
	return d.qemu.Recover(ctx)
}

// leavePatience is how long QEMU may take to notice that the connection has ended.
const leavePatience = 2 * time.Second

// leave has the destination listen for whoever resumes its VM, if that lacks memory. A QEMU that waits for memory itself may
// not answer a monitor that is opened later: it would have to obey other commands first.
func (d *destination) leave(ctx context.Context, p qemu.Progress, err error) {
	if d.socket == "" || err == nil || p.Owner != qemu.Destination {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leavePatience)
	defer cancel()
	for {
		if err := d.recover(ctx); err == nil || errors.Is(err, qemu.ErrEnded) || errors.Is(err, qemu.ErrComplete) {
			return
		}
		select {
		case <-ctx.Done():
			return // it is told to by --resume, if it answers
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// runs is qemu.RestoreOptions.Runs, if there is a monitor to ask.
func (d *destination) runs() func(context.Context) error {
	if d.qemu == nil {
		return nil
	}
	return d.qemu.Runs
}

func dialer(a config.Addr) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{Timeout: 10 * time.Second}
		return d.DialContext(ctx, a.Network, a.Address)
	}
}
