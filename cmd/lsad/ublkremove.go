package main

import (
	"context"
	"errors"

	"lsad/server/admin"
	"lsad/server/ublk"
)

// DeleteUblk implements admin.LocalDisks.
func (l *localDisks) DeleteUblk(ctx context.Context, name string, force bool) error {
	d, err := l.claim(name, force)
	if err != nil {
		return err
	}
	if d == nil {
		return l.deleteStray(ctx, name, force)
	}
	path := d.path()
	err = l.remove(ctx, d, force)
	l.end(d, err == nil)
	if err == nil {
		l.server.log.Info("removed a ublk device", "device", path, "force", force)
	}
	return err
}

// claim finds the disk to remove; nil if there is none. Force also takes one that somebody is removing without: that
// may wait for what will never be written.
func (l *localDisks) claim(name string, force bool) (*localDisk, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, admin.Errorf(admin.CodeClosed, "the server is stopping")
	}
	const removing = "being removed"
	for _, d := range l.disks {
		if d.path() != name && l.nameOf(d.key) != name {
			continue
		}
		if d.busy != "" && !(force && d.busy == removing) {
			return nil, admin.Errorf(admin.CodeInUse, "%s is %s", name, d.busy)
		}
		l.begin(d, removing)
		return d, nil
	}
	return nil, nil
}

func (l *localDisks) remove(ctx context.Context, d *localDisk, force bool) error {
	if d.dev != nil {
		return codedUblk(d.dev.Stop(force))
	}
	if err := removeWaiting(ctx, d.waits.ID, force); err != nil || d.hold == nil {
		return err
	}
	return d.hold.Close()
}

// removeWaiting removes a device that nobody serves. What waits for it fails.
func removeWaiting(ctx context.Context, id int, force bool) error {
	if !force {
		return admin.Errorf(admin.CodeInUse, "%s has requests that wait for it to be served again; --force removes it and fails them", blockPath(id))
	}
	err := ublk.Remove(ctx, id)
	if errors.Is(err, ublk.ErrNotFound) {
		return nil // somebody else removed it
	}
	return codedUblk(err)
}

// deleteStray removes a device with this array's mark that is not among ours.
func (l *localDisks) deleteStray(ctx context.Context, name string, force bool) error {
	all, err := l.ours()
	if err != nil {
		return codedUblk(err)
	}
	for _, i := range all {
		if blockPath(i.ID) == name || l.nameOf(i.Key) == name {
			return removeWaiting(ctx, i.ID, force)
		}
	}
	return admin.Errorf(admin.CodeNotFound, "%s is no ublk device of this server; see lsad ublk list", name)
}

// stop removes the devices. One that cannot be removed in order waits for the next server instead: one that is in
// use, since its file system would lose what it has not written yet, and one whose cache the array did not take.
func (l *localDisks) stop() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.changes.Wait()
	l.mu.Lock()
	disks := l.disks
	l.disks = nil
	l.mu.Unlock()
	var errs []error
	for _, d := range disks {
		errs = append(errs, l.stopOne(d))
	}
	return errors.Join(errs...)
}

func (l *localDisks) stopOne(d *localDisk) error {
	log := l.server.log.With("device", d.path(), "volume", l.nameOf(d.key))
	if d.dev == nil {
		log.Warn("a local disk waits on for a server")
		if d.hold == nil {
			return nil
		}
		return d.hold.Close()
	}
	err := d.dev.Stop(false)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ublk.ErrInUse):
		log.Warn("a local disk is in use; it waits for the next server")
	default:
		log.Error("a local disk could not be removed in order; it waits for the next server with what was not written", "error", err)
	}
	return d.dev.Leave()
}
