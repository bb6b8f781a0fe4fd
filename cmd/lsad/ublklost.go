package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"lsad/server/ublk"
)

// What the kernel of this machine takes for written may be lost, and its disks still be there, in one case: the server
// was killed, and the array opened without a device that it had then. To serve such a disk again would be silent
// corruption, as it would be to reconnect an attachment.

// errMayHaveLost is why a device waits on.
var errMayHaveLost = errors.New("the array was opened without one of its devices, and may lack writes that were acknowledged: start the server with all of them")

// mayHaveLost says whether writes to a volume or snapshot that were acknowledged may be lost. Without one device what
// has two copies is whole, and a snapshot was made durable when it was taken.
func (l *localDisks) mayHaveLost(name string) bool {
	a := l.server.array
	volume, _, isSnapshot := strings.Cut(name, "@")
	if !a.Recovery().MayHaveLost || isSnapshot {
		return false
	}
	v, err := a.Volume(volume)
	return err != nil || v.Copies < 2 || a.Status().ReadOnly
}

// giveUp deals with a device whose volume may have lost writes, and says whether it is gone. While the array is
// read-only it waits, as the next start may find everything. Once the array goes on without what is missing, nothing
// can bring it back.
func (l *localDisks) giveUp(ctx context.Context, d *localDisk, log *slog.Logger) (gone bool) {
	err := errMayHaveLost
	if !l.server.array.Status().ReadOnly {
		if err = ublk.Remove(ctx, d.waits.ID); err == nil {
			log.Error("removed a ublk device of an earlier server: writes that were acknowledged may be lost with a device of the array; its users see errors")
			return d.hold.Close() == nil
		}
	}
	log.Error("a ublk device of an earlier server waits on; lsad ublk del --force removes it", "error", err)
	l.mu.Lock()
	d.problem = err
	l.mu.Unlock()
	return false
}
