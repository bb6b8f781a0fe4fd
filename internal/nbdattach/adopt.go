package nbdattach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"golang.org/x/sys/unix"

	"lsad/internal/nbdclient"
)

// sameDisk says whether two devices have the same content: the same export of the same incarnation. That tells array
// and volume, so the address may be spelled otherwise, or be another one of the same server.
func (b backend) sameDisk(o backend) bool {
	return b.incarnation == o.incarnation && b.incarnation != unknownIncarnation && exportOf(b.target) == exportOf(o.target)
}

func exportOf(uri string) string {
	t, err := nbdclient.ParseURI(uri)
	if err != nil {
		return uri
	}
	return t.Export
}

// other is the error of a device that is not attached to what is wanted; nil if it is. kept is what the kernel keeps
// with it.
func other(device, kept string, want backend) error {
	old, ok := parseBackend(kept)
	if ok && old.sameDisk(want) {
		return nil
	}
	const ways = "name another device, or unmount this one if it is mounted and detach it (lsad detach)"
	if !ok {
		return fmt.Errorf("%s is %w: another program connected it, or has it open; name another device, or disconnect it with that program", device, ErrInUse)
	}
	if was := exportOf(old.target); was != exportOf(want.target) {
		return fmt.Errorf("%s is %w: attached to %q of %s; %s", device, ErrInUse, was, serverOf(old.target), ways)
	}
	if want.incarnation == unknownIncarnation {
		return fmt.Errorf("%s is %w: %w: it does not tell whether it kept what was acknowledged; %s", device, ErrInUse, ErrChanged, ways)
	}
	return fmt.Errorf("%s is %w: attached to an earlier state of %q, or to another volume of that name: the server lost power since, or the volume was reverted, shrunk or made anew, and what was not flushed may be lost; %s",
		device, ErrInUse, exportOf(old.target), ways)
}

func serverOf(uri string) string {
	t, err := nbdclient.ParseURI(uri)
	if err != nil {
		return "another server"
	}
	return t.Network + ":" + t.Address
}

// adopt takes over a device that is attached already and that nobody watches: the one that was named, or else any that
// is attached to the same. It says whether there is one, and returns the connections with those it added.
func (a *Attachment) adopt(ctx context.Context, conns []net.Conn, info nbdclient.Info) ([]net.Conn, bool, error) {
	all, err := a.driver.connected()
	if err != nil {
		return conns, false, err
	}
	if a.index >= 0 {
		if !slices.Contains(all, a.index) {
			return conns, false, nil
		}
		conns, err = a.takeOver(ctx, conns, info)
		return conns, true, err
	}
	slices.Sort(all)
	for _, index := range all {
		if other(path(index), readSys(index, "backend"), a.backend) != nil {
			continue
		}
		lock, err := watch(index)
		if err != nil {
			continue // somebody watches it
		}
		want, connections := a.backend, a.o.Connections
		a.index, a.lock = index, lock
		if conns, err = a.takeOver(ctx, conns, info); !errors.Is(err, ErrInUse) {
			return conns, true, err
		}
		lock.Close()
		a.index, a.lock, a.backend, a.o.Connections = -1, nil, want, connections
	}
	return conns, false, nil
}

// takeOver gives the device, which is locked, connections for those that broke. It keeps what it was made with: the
// kernel compares that, and cannot have more connections or fewer.
func (a *Attachment) takeOver(ctx context.Context, conns []net.Conn, info nbdclient.Info) ([]net.Conn, error) {
	kept := readSys(a.index, "backend")
	if err := other(a.Path(), kept, a.backend); err != nil {
		return conns, err
	}
	a.backend, _ = parseBackend(kept)
	conns, err := a.enough(ctx, conns, info)
	if err != nil {
		return conns, err
	}
	if a.size, err = sizeOf(a.index); err != nil {
		return conns, err
	}
	a.log.Info("taking over a device that nobody watched", "device", a.Path())
	err = a.giveSockets(a.device(conns, info))
	if errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("%s is %w: it was disconnected while something had it open; unmount it, or end what else has it", a.Path(), ErrInUse)
	}
	return conns, err
}

// enough makes as many connections as the device has: all of its may have broken.
func (a *Attachment) enough(ctx context.Context, conns []net.Conn, info nbdclient.Info) ([]net.Conn, error) {
	n := a.backend.connections
	if n != a.o.Connections {
		a.log.Info("the device keeps the number of connections it was attached with; to change it, detach it and attach it anew",
			"device", a.Path(), "connections", n, "asked for", a.o.Connections)
		a.o.Connections = n
	}
	if n <= len(conns) {
		return conns, nil
	}
	more, now, err := a.dial(ctx, n-len(conns))
	conns = append(conns, more...)
	if err == nil && incarnation(now) != incarnation(info) {
		err = a.changed()
	}
	return conns, err
}
