package memsvc

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Fork makes a writable clone of an image, and clones of the snapshots of its volumes: NAME-VOLUME. However large
// the image is, it takes no longer.
func (s *Service) Fork(ctx context.Context, image, name string) (Info, error) {
	if err := s.checkName(name); err != nil {
		return Info{}, err
	}
	info, err := s.Get(image)
	if err != nil {
		return Info{}, err
	}
	if info.Writable {
		return Info{}, fmt.Errorf("image %q is a fork itself: %w: fork the image that it comes from", image, ErrInvalid)
	}
	if err := s.take(ctx, name); err != nil {
		return Info{}, err
	}
	defer s.give(name)
	m := *info.Manifest
	m.Parent, m.ForkedAt, m.Volumes = image, time.Now().UTC(), clonesFor(name, m.Volumes)
	hidden := stagingName()
	if err := s.fork(ctx, image, hidden, name, &m); err != nil {
		clean := context.WithoutCancel(ctx)
		if e := s.deleteStaging(clean, hidden, staging{Image: name, Since: m.ForkedAt, Volumes: m.Volumes}); e != nil {
			s.log.Error("a fork that failed left something behind, which the next start deletes", "image", name, "error", e)
		}
		return Info{}, fmt.Errorf("fork image %q: %w", image, err)
	}
	return s.Get(name)
}

func clonesFor(name string, refs []VolumeRef) []VolumeRef {
	refs = slices.Clone(refs)
	for i := range refs {
		refs[i].Clone = name + "-" + refs[i].Name
	}
	return refs
}

func (s *Service) fork(ctx context.Context, image, hidden, name string, m *Manifest) error {
	if err := s.store.Clone(ctx, image, "", hidden); err != nil {
		return err
	}
	v, err := s.store.Volume(hidden)
	if err != nil {
		return err
	}
	a, err := decodeAttributes(v.Attributes)
	if err != nil {
		return err
	}
	// The staging attributes list the clones before they are made, so that a sweep finds them.
	raw, err := encodeStaging(staging{Image: name, Since: m.ForkedAt, Volumes: m.Volumes})
	if err == nil {
		err = s.store.Update(ctx, hidden, VolumeUpdate{Attributes: raw})
	}
	if err != nil {
		return err
	}
	for _, ref := range m.Volumes {
		if err := s.store.Clone(ctx, ref.Name, ref.Snapshot, ref.Clone); err != nil {
			return fmt.Errorf("clone of volume %q: %w", ref.Name, err)
		}
	}
	if a.Manifest, err = m.encode(); err != nil {
		return err
	}
	return s.publish(ctx, hidden, name, a, false)
}

// publish makes an image or a fork of a staging volume, in one step.
func (s *Service) publish(ctx context.Context, hidden, name string, a *attributes, seal bool) error {
	raw, err := a.encode()
	if err != nil {
		return err
	}
	return s.store.Update(ctx, hidden, VolumeUpdate{Name: name, Attributes: raw, Seal: seal})
}

// imageAttributes are those of an image with a manifest and nothing else.
func imageAttributes(manifest json.RawMessage) *attributes {
	return &attributes{Kind: kindImage, Manifest: manifest}
}
