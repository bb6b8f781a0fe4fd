package lsa

import (
	"fmt"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// checkCatalog says what keeps volumes and layers, as read from the metadata
// store, from being a catalogue. A volume without its layer would read as
// zeros, and a layer of two names would be written through one and read
// through the other.
func checkCatalog(volumes []*volume, layers []blockmap.Layer, nextID uint64) error {
	if err := blockmap.CheckLayers(layers); err != nil {
		return err
	}
	k := catalogCheck{layers: map[uint64]blockmap.Layer{}, children: map[uint64]int{}, named: map[uint64]string{}, nextID: nextID}
	for _, l := range layers {
		k.layers[l.ID] = l
		k.children[l.Parent]++
		if l.ID >= nextID {
			return fmt.Errorf("%w: layer %d, and the next identity is %d", format.ErrInvalid, l.ID, nextID)
		}
	}
	names, ids := map[string]bool{}, map[uint64]bool{}
	for _, v := range volumes {
		if names[v.Name] || ids[v.ID] || v.ID == 0 || v.ID >= nextID {
			return fmt.Errorf("%w: volume %q: its name or its identity %d is another's too, or not to be used yet", format.ErrInvalid, v.Name, v.ID)
		}
		names[v.Name], ids[v.ID] = true, true
		if err := k.volume(v); err != nil {
			return fmt.Errorf("volume %q: %w", v.Name, err)
		}
	}
	return nil
}

type catalogCheck struct {
	layers   map[uint64]blockmap.Layer
	children map[uint64]int // how many layers stand on each
	named    map[uint64]string
	nextID   uint64
}

func (k *catalogCheck) volume(v *volume) error {
	if err := k.name(v.Name, v.Size, v.Head); err != nil {
		return err
	}
	if v.Copies < 0 || v.Copies > 2 {
		return fmt.Errorf("%w: %d copies", format.ErrInvalid, v.Copies)
	}
	if !v.Sealed && k.children[v.Head] > 0 {
		return fmt.Errorf("%w: layer %d, which takes its writes, has others above it", format.ErrInvalid, v.Head)
	}
	if err := checkAttributes(v.Attributes); err != nil {
		return err
	}
	for i := range v.Snapshots {
		s := &v.Snapshots[i]
		if v.snapshot(s.Name) != s {
			return fmt.Errorf("%w: there are two snapshots %q", format.ErrInvalid, s.Name)
		}
		if err := k.name(s.Name, s.Size, s.Layer); err != nil {
			return fmt.Errorf("snapshot %q: %w", s.Name, err)
		}
	}
	return nil
}

// name checks one name with what stands behind it.
func (k *catalogCheck) name(name string, size int64, layer uint64) error {
	if err := CheckName(name); err != nil {
		return fmt.Errorf("%w: %w", format.ErrInvalid, err)
	}
	if err := checkSize(size); err != nil {
		return fmt.Errorf("%w: %w", format.ErrInvalid, err)
	}
	l, ok := k.layers[layer]
	if !ok || l.Merged {
		return fmt.Errorf("%w: layer %d is not there", format.ErrInvalid, layer)
	}
	if other, taken := k.named[layer]; taken {
		return fmt.Errorf("%w: layer %d is also that of %q", format.ErrInvalid, layer, other)
	}
	k.named[layer] = name
	return nil
}
