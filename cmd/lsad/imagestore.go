package main

import (
	"context"
	"errors"

	"lsad/lsa"
	"lsad/memsvc"
)

// imageStore is the array as memsvc.Store.
type imageStore struct{ array *lsa.Array }

// Volumes implements memsvc.Store.
func (s imageStore) Volumes() []memsvc.VolumeInfo {
	var all []memsvc.VolumeInfo
	for _, v := range s.array.Volumes() {
		all = append(all, imageVolume(&v))
	}
	return all
}

// Volume implements memsvc.Store.
func (s imageStore) Volume(name string) (memsvc.VolumeInfo, error) {
	v, err := s.array.Volume(name)
	return imageVolume(&v), err
}

func imageVolume(v *lsa.VolumeInfo) memsvc.VolumeInfo {
	out := memsvc.VolumeInfo{
		Name: v.Name, Size: v.Size, StoredBytes: v.Mapped, Created: v.Created, Origin: v.Origin,
		Sealed: v.Sealed, Attributes: v.Attributes, Clients: v.Clients,
	}
	for _, s := range v.Snapshots {
		out.Snapshots = append(out.Snapshots, s.Name)
	}
	return out
}

// Create implements memsvc.Store.
func (s imageStore) Create(ctx context.Context, name string, size int64, attributes []byte) error {
	return s.array.CreateVolumeWith(ctx, name, size, lsa.VolumeOptions{Attributes: attributes})
}

// Clone implements memsvc.Store.
func (s imageStore) Clone(ctx context.Context, volume, snapshot, name string) error {
	return s.array.Clone(ctx, volume, snapshot, name)
}

// Resize implements memsvc.Store.
func (s imageStore) Resize(ctx context.Context, name string, size int64, force bool) error {
	if v, err := s.array.Volume(name); err != nil || v.Size == size {
		return err
	}
	// Shrinking is refused while the volume is open, which a writer's is not yet when it shrinks.
	return s.array.ResizeVolume(ctx, name, size, force)
}

// Update implements memsvc.Store.
func (s imageStore) Update(ctx context.Context, name string, u memsvc.VolumeUpdate) error {
	return s.array.UpdateVolume(ctx, name, lsa.VolumeUpdate{Name: u.Name, Attributes: u.Attributes, Seal: u.Seal})
}

// Snapshot implements memsvc.Store.
func (s imageStore) Snapshot(ctx context.Context, volume, snapshot string) error {
	return s.array.Snapshot(ctx, volume, snapshot)
}

// Delete implements memsvc.Store.
func (s imageStore) Delete(ctx context.Context, name string) error {
	return s.array.DeleteVolume(ctx, name)
}

// Open implements memsvc.Store.
func (s imageStore) Open(name, client string) (memsvc.Volume, error) {
	return s.array.OpenVolume(name, lsa.OpenOptions{Client: client})
}

// CheckName implements memsvc.Store.
func (s imageStore) CheckName(name string) error { return lsa.CheckName(name) }

// IsNotFound implements memsvc.Store.
func (s imageStore) IsNotFound(err error) bool { return errors.Is(err, lsa.ErrNotFound) }
