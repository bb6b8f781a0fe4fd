package lsa

import (
	"context"
	"fmt"
	"time"
)

// Snapshot seals what the volume holds now under a name of its own.
func (a *Array) Snapshot(ctx context.Context, volume, snap string) error {
	if err := CheckName(snap); err != nil {
		return fmt.Errorf("snapshot of volume %q: %w", volume, err)
	}
	a.admin.Lock()
	defer a.admin.Unlock()
	v, err := a.catalog.find(volume)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := v.notSealed(); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if v.snapshot(snap) != nil {
		return fmt.Errorf("snapshot %s@%s %w", volume, snap, ErrExists)
	}
	ch := adminChange{Op: "snapshot", Volume: volume, Snapshot: snap, Layer: a.catalog.take(1), Time: time.Now().UTC()}
	// Writers wait for the record, not for it to be durable.
	if !planted(ruleSnapshotGate) {
		v.gate.Lock()
	}
	lsn, err := a.logChange(ch)
	if !planted(ruleSnapshotGate) {
		v.gate.Unlock()
	}
	if err != nil {
		return fmt.Errorf("snapshot %s@%s: %w", volume, snap, err)
	}
	return a.syncTo(lsn)
}

// Clone makes a writable volume of a snapshot, or, if snap is "", of a sealed
// volume; they share their blocks.
func (a *Array) Clone(ctx context.Context, volume, snap, name string) error {
	if err := CheckName(name); err != nil {
		return fmt.Errorf("clone %s@%s: %w", volume, snap, err)
	}
	a.admin.Lock()
	defer a.admin.Unlock()
	v, err := a.catalog.find(volume)
	if err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	if v.origin(snap) == nil {
		if snap == "" {
			return fmt.Errorf("clone: %w: volume %q is not sealed; take a snapshot of it and clone that", ErrInvalid, volume)
		}
		return fmt.Errorf("clone: snapshot %s@%s %w", volume, snap, ErrNotFound)
	}
	if _, err := a.catalog.find(name); err == nil {
		return fmt.Errorf("clone: volume %q %w", name, ErrExists)
	}
	id := a.catalog.take(2)
	return a.change("clone", adminChange{Op: "clone", Volume: volume, Snapshot: snap, To: name, ID: id, Layer: id + 1, Time: time.Now().UTC()})
}

// Revert makes a volume what it was at a snapshot, which stays, as do all
// others. It is refused while clients are connected to the volume.
func (a *Array) Revert(ctx context.Context, volume, snap string) error {
	a.admin.Lock()
	defer a.admin.Unlock()
	v, err := a.catalog.find(volume)
	if err != nil {
		return fmt.Errorf("revert: %w", err)
	}
	if err := v.notSealed(); err != nil {
		return fmt.Errorf("revert: %w", err)
	}
	if v.snapshot(snap) == nil {
		return fmt.Errorf("revert: snapshot %s@%s %w", volume, snap, ErrNotFound)
	}
	v.gate.Lock()
	defer v.gate.Unlock()
	if err := a.headUnused(v); err != nil {
		return fmt.Errorf("revert: %w", err)
	}
	defer kick(a.work.tidy)
	return a.change("revert", adminChange{Op: "revert", Volume: volume, Snapshot: snap, Layer: a.catalog.take(1)})
}
