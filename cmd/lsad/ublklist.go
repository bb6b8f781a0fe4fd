package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"lsad/server/admin"
	"lsad/server/ublk"
)

// stateFailed is that of a device whose server lives but no longer serves it.
const stateFailed = "failed"

func (l *localDisks) describe(d *localDisk) admin.UblkDevice {
	out := admin.UblkDevice{Path: d.path(), Volume: l.nameOf(d.key), State: ublk.StateLive.String(), Problem: textOf(d.problem)}
	if dev := d.dev; dev != nil {
		out.ID, out.SizeBytes, out.Queues, out.Depth, out.ReadOnly = dev.ID(), dev.Size(), dev.Queues(), dev.Depth(), dev.ReadOnly()
		out.InUse = dev.InUse()
		if err := dev.Failure(); err != nil {
			out.State, out.Problem = stateFailed, err.Error()
		}
	}
	if i := d.waits; i != nil {
		out.ID, out.Queues, out.Depth, out.State = i.ID, i.Queues, i.Depth, ublk.StateWaiting.String()
	}
	return out
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Ublk implements admin.LocalDisks. Devices that wait for a server are among them, and those that another server on a
// copy of the array serves.
func (l *localDisks) Ublk() ([]admin.UblkDevice, error) {
	all, err := l.ours()
	if err != nil && !errors.Is(err, ublk.ErrNoDriver) {
		return nil, codedUblk(err)
	}
	l.mu.Lock()
	var disks []*localDisk
	for _, d := range l.disks {
		if d.path() != "" {
			c := *d // nothing is looked at with the lock held that could take time
			disks = append(disks, &c)
		}
		// What the kernel has of it is not somebody else's.
		all = slices.DeleteFunc(all, func(i ublk.Info) bool { return blockPath(i.ID) == d.path() || d.path() == "" && i.Key == d.key })
	}
	l.mu.Unlock()
	var out []admin.UblkDevice
	for _, d := range disks {
		out = append(out, l.describe(d))
	}
	for _, i := range all {
		out = append(out, l.stray(i))
	}
	slices.SortFunc(out, func(a, b admin.UblkDevice) int { return a.ID - b.ID })
	return out, nil
}

// stray describes a device with this array's mark that is not among ours.
func (l *localDisks) stray(i ublk.Info) admin.UblkDevice {
	out := admin.UblkDevice{ID: i.ID, Path: blockPath(i.ID), Volume: l.nameOf(i.Key), Queues: i.Queues, Depth: i.Depth, State: i.State.String()}
	if i.State == ublk.StateLive {
		out.Problem = ublk.ErrServed.Error()
	}
	return out
}

// noteDisks says which disks of this machine do not have the new size of their volume.
func (t *target) noteDisks(cmd *cobra.Command, volume string, bytes int64) error {
	return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
		all, err := c.Ublk(ctx)
		if err != nil {
			return nil // the volume has its size, which is what was asked for
		}
		for _, d := range all {
			if d.Volume == volume && d.SizeBytes != 0 && d.SizeBytes != bytes {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s keeps %s until it is removed and added again: %v\n", d.Path, size(d.SizeBytes), ublk.ErrNoResize)
			}
		}
		return nil
	})
}
