package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"lsad/server/ublk"
)

// What the kernel of this machine takes for written may be lost, and its disks still be there, in two cases: the server
// was killed, and the array opened without a device that it had then; or the data directory was restored from a copy. To serve
// such a disk again would be silent corruption, as it would be to reconnect an attachment.

// errMayHaveLost is why a device waits on.
var errMayHaveLost = errors.New("the array was opened without one of its devices, and may lack writes that were acknowledged: start the server with all of them")

// mayHaveLost says whether writes to a volume or snapshot that were acknowledged may be lost. Without one device what
// has two copies is whole, and a snapshot was made durable when it was taken.
func (l *localDisks) mayHaveLost(name string) bool {
	a := l.server.array
	volume, _, isSnapshot := strings.Cut(name, "@")
	switch r := a.Recovery(); {
	case isSnapshot || !r.MayHaveLost:
		return false
	case r.Restored:
		return true
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
		why := "with a device of the array"
		if l.server.array.Recovery().Restored {
			why = "since the copy was made that the data directory was restored from"
		}
		switch err = ublk.Remove(ctx, d.waits.ID); {
		case err == nil:
			log.Error("removed a ublk device of an earlier server: writes that were acknowledged may be lost " + why + "; its users see errors")
			return d.hold.Close() == nil
		case errors.Is(err, ublk.ErrServed):
			log.Warn("a ublk device with the mark of this array is left alone", "error", errors.Join(err, d.hold.Close()))
			return true
		}
	}
	log.Error("a ublk device of an earlier server waits on; lsad ublk del --force removes it", "error", err)
	l.mu.Lock()
	d.problem = err
	l.mu.Unlock()
	return false
}
