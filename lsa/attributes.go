package lsa

import (
	"context"
	"encoding/json"
	"fmt"
)

// MaxAttributes bounds the attributes of a volume, in bytes.
const MaxAttributes = 32 << 10

// checkAttributes accepts nil and one JSON document.
func checkAttributes(attributes json.RawMessage) error {
	if len(attributes) > MaxAttributes {
		return fmt.Errorf("%w: its attributes take %d bytes, there is room for %d", ErrInvalid, len(attributes), MaxAttributes)
	}
	if len(attributes) > 0 && !json.Valid(attributes) {
		return fmt.Errorf("%w: its attributes are not JSON", ErrInvalid)
	}
	return nil
}

// VolumeUpdate says what UpdateVolume changes.
type VolumeUpdate struct {
	Name       string          // "" keeps it
	Attributes json.RawMessage // nil keeps them
	// Seal: the volume is never written again. It can be cloned without a
	// snapshot, and there is no way back.
	Seal bool
}

// UpdateVolume carries out all of u as one change, which a crash cannot part.
// Sealing is refused while the volume is open for writing.
func (a *Array) UpdateVolume(ctx context.Context, name string, u VolumeUpdate) error {
	if err := checkAttributes(u.Attributes); err != nil {
		return fmt.Errorf("update volume %q: %w", name, err)
	}
	a.admin.Lock()
	defer a.admin.Unlock()
	v, err := a.catalog.find(name)
	if err != nil {
		return fmt.Errorf("update: %w", err)
	}
	if u.Name == name {
		u.Name = ""
	}
	if u.Name != "" {
		if err := CheckName(u.Name); err != nil {
			return fmt.Errorf("update volume %q: %w", name, err)
		}
		if _, err := a.catalog.find(u.Name); err == nil {
			return fmt.Errorf("rename volume %q: volume %q %w", name, u.Name, ErrExists)
		}
	}
	v.gate.Lock()
	defer v.gate.Unlock()
	if u.Seal {
		if err := a.clientsOf(v, func(h *Handle) bool { return !h.readOnly }); err != nil {
			return fmt.Errorf("seal: %w", err)
		}
	}
	return a.change("update volume", adminChange{Op: "update", Volume: name, To: u.Name, Attributes: u.Attributes, Seal: u.Seal})
}

// notSealed refuses what would change a sealed volume.
func (v *volume) notSealed() error {
	if v.Sealed {
		return fmt.Errorf("volume %q is sealed: %w; clone it for a writable one", v.Name, ErrReadOnly)
	}
	return nil
}
