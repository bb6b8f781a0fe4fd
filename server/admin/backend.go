package admin

import "context"

// Array is what is administered. Its methods may be called from many goroutines at once. Errors are made
// with Wrap, so that they carry a code; any other error is reported with CodeInternal.
type Array interface {
	Status() Status
	Counters() Counters
	// Health is nil while the array serves reads and writes.
	Health() error
	Volumes() []Volume
	Volume(name string) (Volume, error)
	Devices() []Device
	Connections() []Connection

	// CreateVolume makes a volume of size bytes; copies of each block are 1 or 2, 0 for 1.
	CreateVolume(ctx context.Context, name string, size int64, copies int) error
	ResizeVolume(ctx context.Context, name string, size int64, force bool) error
	RenameVolume(ctx context.Context, from, to string) error
	// DeleteVolume deletes a volume with its snapshots, or one snapshot ("VOLUME@SNAPSHOT").
	DeleteVolume(ctx context.Context, name string) error
	Snapshot(ctx context.Context, volume, snapshot string) error
	Clone(ctx context.Context, volume, snapshot, name string) error
	Revert(ctx context.Context, volume, snapshot string) error
}

// Collector is the garbage collection of the array.
type Collector interface {
	GCStatus() []GCDevice
	GCRun(device string) error
	GCSet(change GCChange) error
}
