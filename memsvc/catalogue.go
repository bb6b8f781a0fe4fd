package memsvc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Info describes an image or a fork.
type Info struct {
	Name        string
	Manifest    *Manifest
	Writable    bool  // it is a fork
	StoredBytes int64 // that it takes by itself; a parent's unchanged pages are not counted
	Clients     []string
	WorkingSet  WorkingSetInfo
}

// List returns the images in name order. Those with a damaged manifest are left out; Get says what is wrong with one.
func (s *Service) List() []Info {
	var all []Info
	for _, v := range s.store.Volumes() {
		if Classify(v.Name, v.Attributes) != ClassImage {
			continue
		}
		info, err := infoOf(&v)
		if err != nil {
			s.log.Error("an image has no usable manifest", "image", v.Name, "error", err)
			continue
		}
		all = append(all, info)
	}
	return all
}

// Get returns one image.
func (s *Service) Get(name string) (Info, error) {
	v, err := s.lookup(name)
	if err != nil {
		return Info{}, err
	}
	return infoOf(&v)
}

func (s *Service) lookup(name string) (VolumeInfo, error) {
	v, err := s.store.Volume(name)
	switch {
	case err != nil && !s.store.IsNotFound(err):
		return v, err
	case err != nil, Classify(name, v.Attributes) == ClassHidden:
		return v, fmt.Errorf("image %q %w", name, ErrNotFound)
	case Classify(name, v.Attributes) == ClassVolume:
		return v, fmt.Errorf("image %q %w: there is a volume of that name", name, ErrNotFound)
	}
	return v, nil
}

func infoOf(v *VolumeInfo) (Info, error) {
	a, err := decodeAttributes(v.Attributes)
	if err != nil {
		return Info{}, fmt.Errorf("image %q: %w", v.Name, err)
	}
	m, err := a.manifest()
	if err != nil {
		return Info{}, fmt.Errorf("image %q: %w", v.Name, err)
	}
	if end := max(m.RAM(), m.State.Offset+m.State.Length); v.Size < end {
		return Info{}, fmt.Errorf("image %q: %w: the manifest describes %d bytes, the volume has %d", v.Name, ErrDamaged, end, v.Size)
	}
	return Info{
		Name: v.Name, Manifest: m, Writable: !v.Sealed, StoredBytes: v.StoredBytes, Clients: v.Clients, WorkingSet: a.WorkingSet.info(),
	}, nil
}

// checkName refuses names that are the package's own, or no names of volumes.
func (s *Service) checkName(name string) error {
	if strings.HasPrefix(name, stagingPrefix) {
		return fmt.Errorf("image %q: %w: names that begin with %q are for images in the making", name, ErrInvalid, stagingPrefix)
	}
	return s.store.CheckName(name)
}

// Rename gives an image another name. Clients stay connected.
func (s *Service) Rename(ctx context.Context, from, to string) error {
	if err := s.checkName(to); err != nil {
		return err
	}
	if err := s.take(ctx, to); err != nil {
		return err
	}
	defer s.give(to)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.lookup(from); err != nil {
		return err
	}
	return s.store.Update(ctx, from, VolumeUpdate{Name: to})
}

// Delete deletes an image with the snapshots that were taken for it. It is refused while clients have it open. The
// volumes of a fork stay: they are the user's.
func (s *Service) Delete(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.lookup(name)
	if err != nil {
		return err
	}
	if len(v.Clients) > 0 {
		return fmt.Errorf("image %q is %w by %s; disconnect them first", name, ErrInUse, strings.Join(v.Clients, ", "))
	}
	st := staging{Image: name, Since: time.Now().UTC()}
	// An image whose manifest is damaged can be deleted too; its snapshots stay then.
	if info, err := infoOf(&v); err == nil && v.Sealed {
		st.Volumes = info.Manifest.Volumes
	}
	raw, err := encodeStaging(st)
	if err != nil {
		return err
	}
	hidden := stagingName()
	if err := s.store.Update(ctx, name, VolumeUpdate{Name: hidden, Attributes: raw}); err != nil {
		return fmt.Errorf("delete image %q: %w", name, err)
	}
	return s.deleteStaging(context.WithoutCancel(ctx), hidden, st)
}

// Holder names the image that needs a snapshot ("VOLUME@SNAPSHOT"), or any snapshot of a volume ("VOLUME"); "" if
// none does.
func (s *Service) Holder(name string) string {
	volume, snapshot, one := strings.Cut(name, "@")
	for _, info := range s.List() {
		if info.Writable {
			continue
		}
		for _, ref := range info.Manifest.Volumes {
			if ref.Name == volume && (!one || ref.Snapshot == snapshot) {
				return info.Name
			}
		}
	}
	return ""
}

// stagingName is a name that nobody has.
func stagingName() string { return stagingPrefix + random() }

func random() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// changeAttributes reads, changes and writes back the attributes of an image.
func (s *Service) changeAttributes(ctx context.Context, name string, change func(*attributes, *Manifest) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.lookup(name)
	if err != nil {
		return err
	}
	a, err := decodeAttributes(v.Attributes)
	if err != nil {
		return fmt.Errorf("image %q: %w", name, err)
	}
	m, err := a.manifest()
	if err != nil {
		return fmt.Errorf("image %q: %w", name, err)
	}
	if err := change(a, m); err != nil {
		return fmt.Errorf("image %q: %w", name, err)
	}
	raw, err := a.encode()
	if err != nil {
		return fmt.Errorf("image %q: %w", name, err)
	}
	return s.store.Update(ctx, name, VolumeUpdate{Attributes: raw})
}
