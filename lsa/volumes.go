package lsa

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"lsad/lsa/format"
)

// MaxVolumeSize in bytes.
const MaxVolumeSize = format.MaxVolumeBlocks * format.BlockSize

func checkSize(size int64) error {
	if size <= 0 || size%format.BlockSize != 0 || size > MaxVolumeSize {
		return fmt.Errorf("size %d: %w: it must be a multiple of 4 KiB, above 0 and at most 4 EiB", size, ErrInvalid)
	}
	return nil
}

// VolumeOptions of CreateVolumeWith. The zero value is what CreateVolume takes.
type VolumeOptions struct {
	// Copies of each block, on as many devices: 1 or 2, 0 for 1. Clones have
	// as many as what they come from.
	Copies int
	// Attributes are a JSON document of at most MaxAttributes bytes that means
	// nothing to the array. Clones inherit it.
	Attributes json.RawMessage
}

func (a *Array) checkCopies(copies int) error {
	if copies < 0 || copies > 2 {
		return fmt.Errorf("%w: %d copies, there can be 1 or 2", ErrInvalid, copies)
	}
	if copies == 2 && a.members() < 2 {
		return fmt.Errorf("%w: two copies take two devices, the array has one", ErrInvalid)
	}
	return nil
}

// members counts the devices that belong to the array, absent ones too.
func (a *Array) members() int {
	a.super.mu.Lock()
	defer a.super.mu.Unlock()
	n := 0
	for _, row := range a.super.rows {
		if row.State != format.DeviceGone {
			n++
		}
	}
	return n
}

// CreateVolume makes an empty volume of size bytes with one copy of each block.
func (a *Array) CreateVolume(ctx context.Context, name string, size int64) error {
	return a.CreateVolumeWith(ctx, name, size, VolumeOptions{})
}

// CreateVolumeWith makes an empty volume of size bytes.
func (a *Array) CreateVolumeWith(ctx context.Context, name string, size int64, o VolumeOptions) error {
	if err := CheckName(name); err != nil {
		return fmt.Errorf("create volume: %w", err)
	}
	if err := checkSize(size); err != nil {
		return fmt.Errorf("create volume %q: %w", name, err)
	}
	if err := a.checkCopies(o.Copies); err != nil {
		return fmt.Errorf("create volume %q: %w", name, err)
	}
	if err := checkAttributes(o.Attributes); err != nil {
		return fmt.Errorf("create volume %q: %w", name, err)
	}
	a.admin.Lock()
	defer a.admin.Unlock()
	if _, err := a.catalog.find(name); err == nil {
		return fmt.Errorf("create volume: volume %q %w", name, ErrExists)
	}
	id := a.catalog.take(2)
	return a.change("create volume", adminChange{Op: "create", Volume: name, ID: id, Layer: id + 1, Size: size, Copies: o.Copies, Attributes: o.Attributes, Time: time.Now().UTC()})
}

// ResizeVolume grows a volume, or with force shrinks one that no client has
// open; what lies beyond the new end is gone.
func (a *Array) ResizeVolume(ctx context.Context, name string, size int64, force bool) error {
	if err := checkSize(size); err != nil {
		return fmt.Errorf("resize volume %q: %w", name, err)
	}
	a.admin.Lock()
	defer a.admin.Unlock()
	v, err := a.catalog.find(name)
	if err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	if err := v.notSealed(); err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	v.gate.Lock()
	defer v.gate.Unlock()
	switch {
	case size > v.Size:
		// What a shrink trimmed would be there again, had that trim been lost with a device and not the shrink.
		if err := a.unmap(v.Head, v.Copies, uint64(v.Size)/format.BlockSize, uint64(size-v.Size)/format.BlockSize); err != nil {
			return fmt.Errorf("grow volume %q: %w", name, err)
		}
	case size < v.Size:
		if !force {
			return fmt.Errorf("resize volume %q from %d to %d bytes: %w: it would lose what lies beyond; if that is meant, force it (--force)", name, v.Size, size, ErrInvalid)
		}
		if err := a.headUnused(v); err != nil {
			return fmt.Errorf("shrink: %w", err)
		}
		if err := a.unmap(v.Head, v.Copies, uint64(size)/format.BlockSize, uint64(v.Size-size)/format.BlockSize); err != nil {
			return fmt.Errorf("shrink volume %q: %w", name, err)
		}
	}
	return a.change("resize volume", adminChange{Op: "resize", Volume: name, Size: size})
}

// DeleteVolume deletes a volume with its snapshots, or, for "volume@snapshot",
// one snapshot. Clones live on. It is refused while clients are connected.
func (a *Array) DeleteVolume(ctx context.Context, name string) error {
	a.admin.Lock()
	defer a.admin.Unlock()
	volume, snap, err := splitName(name)
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	v, err := a.catalog.find(volume)
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	ch := adminChange{Op: "delete", Volume: volume}
	s := v.snapshot(snap)
	if snap != "" {
		if s == nil {
			return fmt.Errorf("delete: snapshot %q %w", name, ErrNotFound)
		}
		ch = adminChange{Op: "unsnapshot", Volume: volume, Snapshot: snap}
	}
	v.gate.Lock()
	defer v.gate.Unlock()
	if err := a.unused(v, s); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	defer kick(a.work.tidy)
	return a.change("delete", ch)
}

// RenameVolume gives a volume another name. Clients stay connected.
func (a *Array) RenameVolume(ctx context.Context, from, to string) error {
	if err := CheckName(to); err != nil {
		return fmt.Errorf("rename volume %q: %w", from, err)
	}
	a.admin.Lock()
	defer a.admin.Unlock()
	if _, err := a.catalog.find(from); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	if _, err := a.catalog.find(to); err == nil {
		return fmt.Errorf("rename volume %q: volume %q %w", from, to, ErrExists)
	}
	return a.change("rename volume", adminChange{Op: "rename", Volume: from, To: to})
}

// unused fails, naming the clients, if the volume (or the one snapshot) is open.
func (a *Array) unused(v *volume, s *snapshot) error {
	return a.clientsOf(v, func(h *Handle) bool { return s == nil || h.snapshot == s.Name })
}

func (a *Array) headUnused(v *volume) error {
	return a.clientsOf(v, func(h *Handle) bool { return h.snapshot == "" })
}

// clientsOf fails, naming clients and what they have open, if some match.
func (a *Array) clientsOf(v *volume, match func(*Handle) bool) error {
	a.catalog.mu.Lock()
	defer a.catalog.mu.Unlock()
	clients := map[string]map[string]int{} // connections, by what is open and by client
	for h := range v.handles {
		if !match(h) {
			continue
		}
		what := fmt.Sprintf("volume %q", v.Name)
		if h.snapshot != "" {
			what = fmt.Sprintf("snapshot %q", v.Name+"@"+h.snapshot)
		}
		if clients[what] == nil {
			clients[what] = map[string]int{}
		}
		clients[what][h.client]++
	}
	if len(clients) == 0 {
		return nil
	}
	open := slices.Sorted(maps.Keys(clients))
	more := ""
	for _, what := range open[1:] {
		more += ", " + what + " by " + connections(clients[what])
	}
	return fmt.Errorf("%s is %w by %s%s; disconnect them first", open[0], ErrInUse, connections(clients[open[0]]), more)
}

// connections lists clients, each once.
func connections(clients map[string]int) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(clients)) {
		if n := clients[name]; n > 1 {
			name += fmt.Sprintf(" (%d connections)", n)
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// change logs an administrative change and waits until it is durable.
func (a *Array) change(what string, ch adminChange) error {
	lsn, err := a.logChange(ch)
	if err == nil {
		err = a.syncTo(lsn)
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", what, ch.Volume, err)
	}
	return nil
}

// logChange appends and applies an administrative change.
func (a *Array) logChange(ch adminChange) (lsn uint64, err error) {
	if a.readOnly {
		return 0, fmt.Errorf("array opened degraded: %w", ErrReadOnly)
	}
	payload, err := json.Marshal(ch)
	if err != nil {
		return 0, err
	}
	// A record lies in one segment.
	if most := min(format.MaxAdminPayload, int(a.super.segmentSize)-format.BlockSize); len(payload) > most {
		return 0, fmt.Errorf("%w: the change takes %d bytes in the log, there is room for %d", ErrInvalid, len(payload), most)
	}
	b := newBatch(originUser)
	defer b.release()
	// The catalogue outlives any one device, whatever the volumes ask for.
	b.urgent, b.copies = true, 2
	if planted(ruleCatalogInTwo) {
		b.copies = 1
	}
	b.changes = append(b.changes, change{kind: format.EntryAdmin, admin: payload})
	var applied error
	b.apply = func() { applied = a.applyAdmin(payload) }
	if err := a.reserve(b); err != nil {
		return 0, err
	}
	lsn = b.last
	if err := a.write(b); err != nil {
		return 0, err
	}
	return lsn, applied
}
