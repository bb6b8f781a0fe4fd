package main

import (
	"context"
	"errors"
	"time"

	"lsad/lsa"
	"lsad/server/admin"
)

// Volumes implements admin.Array.
func (b *backend) Volumes() []admin.Volume {
	var out []admin.Volume
	for _, v := range b.server.volumes() {
		out = append(out, volumeOf(v))
	}
	return out
}

// Volume implements admin.Array.
func (b *backend) Volume(name string) (admin.Volume, error) {
	if err := b.server.isVolume(name); err != nil {
		return admin.Volume{}, err
	}
	v, err := b.server.array.Volume(name)
	return volumeOf(v), coded(err)
}

// notHeld refuses to delete snapshots that belong to an image.
func (b *backend) notHeld(name string) error {
	if image := b.server.images.Holder(name); image != "" {
		return admin.Errorf(admin.CodeInUse, "%s has a snapshot that belongs to image %s: delete that first", name, image)
	}
	return nil
}

func volumeOf(v lsa.VolumeInfo) admin.Volume {
	out := admin.Volume{
		Name: v.Name, ID: v.ID, SizeBytes: v.Size, Copies: v.Copies, MappedBytes: v.Mapped, Created: v.Created, Origin: v.Origin,
		Snapshots: []admin.Snapshot{}, Clients: append([]string{}, v.Clients...),
	}
	for _, s := range v.Snapshots {
		out.Snapshots = append(out.Snapshots, admin.Snapshot{Name: s.Name, SizeBytes: s.Size, OwnBytes: s.Own, Created: s.Created})
	}
	return out
}

// CreateVolume implements admin.Array.
func (b *backend) CreateVolume(ctx context.Context, name string, size int64, copies int) error {
	return b.did("created volume "+name, b.server.array.CreateVolumeWith(ctx, name, size, lsa.VolumeOptions{Copies: copies}))
}

// ResizeVolume implements admin.Array.
func (b *backend) ResizeVolume(ctx context.Context, name string, size int64, force bool) error {
	err := whenUnused(ctx, func() error { return b.server.array.ResizeVolume(ctx, name, size, force) })
	if err == nil {
		b.server.disks.resized(name, size)
	}
	return b.did("resized volume "+name, err)
}

// RenameVolume implements admin.Array.
func (b *backend) RenameVolume(ctx context.Context, from, to string) error {
	if err := b.server.isVolume(from); err != nil {
		return err
	}
	if err := b.notHeld(from); err != nil {
		return err
	}
	err := b.server.array.RenameVolume(ctx, from, to)
	if err == nil {
		b.stats.Rename(from, to)
	}
	return b.did("renamed volume "+from+" to "+to, err)
}

// DeleteVolume implements admin.Array.
func (b *backend) DeleteVolume(ctx context.Context, name string) error {
	if err := b.server.isVolume(name); err != nil {
		return err
	}
	if err := b.notHeld(name); err != nil {
		return err
	}
	err := whenUnused(ctx, func() error { return b.server.array.DeleteVolume(ctx, name) })
	if err == nil {
		b.stats.Forget(name)
	}
	return b.did("deleted "+name, err)
}

// Snapshot implements admin.Array.
func (b *backend) Snapshot(ctx context.Context, volume, snapshot string) error {
	if err := b.server.isVolume(volume); err != nil {
		return err
	}
	return b.did("took snapshot "+volume+"@"+snapshot, b.server.array.Snapshot(ctx, volume, snapshot))
}

// Clone implements admin.Array.
func (b *backend) Clone(ctx context.Context, volume, snapshot, name string) error {
	return b.did("created volume "+name+" from "+volume+"@"+snapshot, b.server.array.Clone(ctx, volume, snapshot, name))
}

// Revert implements admin.Array.
func (b *backend) Revert(ctx context.Context, volume, snapshot string) error {
	return b.did("reverted "+volume+" to snapshot "+snapshot, whenUnused(ctx, func() error { return b.server.array.Revert(ctx, volume, snapshot) }))
}

// How long a change waits for the last client of a volume: one that was killed is gone for who killed it before the
// server has heard of it, and has answered what it asked for.
const (
	unusedWithin = 2 * time.Second
	unusedEvery  = 20 * time.Millisecond
)

// whenUnused makes a change that clients may be in the way of.
func whenUnused(ctx context.Context, change func() error) error {
	for begin := time.Now(); ; {
		err := change()
		if !errors.Is(err, lsa.ErrInUse) || time.Since(begin) > unusedWithin {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(unusedEvery):
		}
	}
}

// did logs a change that was made, and codes the error of one that was not.
func (b *backend) did(what string, err error) error {
	if err == nil {
		b.server.log.Info(what)
	}
	return coded(err)
}
