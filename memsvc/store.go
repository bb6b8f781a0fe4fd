package memsvc

import (
	"context"
	"time"
)

// Store keeps volumes. Its methods may be called from many goroutines at once; changes are durable when they
// return.
type Store interface {
	// Volumes lists every volume, in name order.
	Volumes() []VolumeInfo
	// Volume finds one; the error is the store's own "not found".
	Volume(name string) (VolumeInfo, error)

	Create(ctx context.Context, name string, size int64, attributes []byte) error
	// Clone makes a writable volume of a snapshot, or with snapshot "" of a sealed volume, whose attributes it
	// inherits then. It takes no longer for a large one.
	Clone(ctx context.Context, volume, snapshot, name string) error
	Resize(ctx context.Context, name string, size int64, force bool) error
	// Update changes several things about a volume in one step, which a crash cannot tear.
	Update(ctx context.Context, name string, u VolumeUpdate) error
	Snapshot(ctx context.Context, volume, snapshot string) error
	// Delete deletes a volume with its snapshots, or one snapshot ("VOLUME@SNAPSHOT").
	Delete(ctx context.Context, name string) error

	// Open opens a volume; client is who it is, for people.
	Open(name, client string) (Volume, error)
	// CheckName says what is wrong with the name of a volume.
	CheckName(name string) error
	// IsNotFound says whether an error of the store is that there is no such volume or snapshot.
	IsNotFound(err error) bool
}

// VolumeInfo describes a volume.
type VolumeInfo struct {
	Name        string
	Size        int64
	StoredBytes int64 // that the volume takes by itself
	Created     time.Time
	Origin      string // VOLUME@SNAPSHOT, or the sealed volume, that it is a clone of
	Sealed      bool
	Attributes  []byte
	Snapshots   []string
	Clients     []string
}

// VolumeUpdate is a change of a volume. The zero value changes nothing.
type VolumeUpdate struct {
	Name       string // the new name, "" keeps it
	Attributes []byte // nil keeps them
	Seal       bool
}

// Volume is an open volume. Its methods may be called from many goroutines at once.
type Volume interface {
	Size() int64
	ReadAt(p []byte, off int64) error
	// WriteBatch writes data[i] at offs[i] and sets errs[i].
	WriteBatch(offs []int64, data [][]byte, errs []error)
	// Trim makes holes of the blocks within [off, off+n).
	Trim(off, n int64) error
	// Extents calls fn with consecutive extents that cover [off, off+n), until it returns false.
	Extents(off, n int64, fn func(n int64, hole, zero bool) bool) error
	Flush() error
	Close() error
}
