package memsvc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// memStore is a Store in memory. Like a real one it can die: after a number of changes every call fails.
type memStore struct {
	mu      sync.Mutex
	volumes map[string]*memVolume
	clock   int64
	left    int // changes until it is dead; negative: for ever
}

type memVolume struct {
	info  VolumeInfo
	pages map[int64][]byte
	snaps map[string]map[int64][]byte
	open  int
}

var (
	errMissing = errors.New("no such volume")
	errDead    = errors.New("the store is dead")
	errBusy    = errors.New("busy")
)

func newMemStore() *memStore { return &memStore{volumes: map[string]*memVolume{}, left: -1} }

// change counts one; the store is locked until the caller unlocks it.
func (s *memStore) change() error {
	s.mu.Lock()
	if s.left == 0 {
		return errDead
	}
	s.left--
	return nil
}

func (s *memStore) Volumes() []VolumeInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []VolumeInfo
	for _, name := range slices.Sorted(maps.Keys(s.volumes)) {
		all = append(all, s.volumes[name].describe())
	}
	return all
}

func (v *memVolume) describe() VolumeInfo {
	i := v.info
	i.StoredBytes = int64(len(v.pages)) * PageSize
	i.Snapshots = slices.Sorted(maps.Keys(v.snaps))
	for range v.open {
		i.Clients = append(i.Clients, "a test")
	}
	return i
}

func (s *memStore) find(name string) (*memVolume, error) {
	if v := s.volumes[name]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("%q: %w", name, errMissing)
}

func (s *memStore) Volume(name string) (VolumeInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.find(name)
	if err != nil {
		return VolumeInfo{}, err
	}
	return v.describe(), nil
}

func (s *memStore) add(name string, size int64, attributes []byte) (*memVolume, error) {
	if s.volumes[name] != nil {
		return nil, fmt.Errorf("%q exists", name)
	}
	s.clock++
	v := &memVolume{pages: map[int64][]byte{}, snaps: map[string]map[int64][]byte{}}
	v.info = VolumeInfo{Name: name, Size: size, Attributes: attributes, Created: time.Now().Add(time.Second)}
	s.volumes[name] = v
	return v, nil
}

func (s *memStore) Create(_ context.Context, name string, size int64, attributes []byte) error {
	defer s.mu.Unlock()
	if err := s.change(); err != nil {
		return err
	}
	_, err := s.add(name, size, attributes)
	return err
}

func (s *memStore) Clone(_ context.Context, volume, snapshot, name string) error {
	defer s.mu.Unlock()
	if err := s.change(); err != nil {
		return err
	}
	from, err := s.find(volume)
	if err != nil {
		return err
	}
	pages, origin := from.pages, volume
	if snapshot != "" {
		if pages = from.snaps[snapshot]; pages == nil {
			return errMissing
		}
		origin += "@" + snapshot
	} else if !from.info.Sealed {
		return errors.New("not sealed")
	}
	v, err := s.add(name, from.info.Size, from.info.Attributes)
	if err == nil {
		v.pages, v.info.Origin = maps.Clone(pages), origin
	}
	return err
}

func (s *memStore) Resize(_ context.Context, name string, size int64, force bool) error {
	defer s.mu.Unlock()
	if err := s.change(); err != nil {
		return err
	}
	v, err := s.find(name)
	if err != nil {
		return err
	}
	if size < v.info.Size && !force {
		return errors.New("would lose data")
	}
	v.info.Size = size
	maps.DeleteFunc(v.pages, func(off int64, _ []byte) bool { return off >= size })
	return nil
}

func (s *memStore) Update(_ context.Context, name string, u VolumeUpdate) error {
	defer s.mu.Unlock()
	if err := s.change(); err != nil {
		return err
	}
	v, err := s.find(name)
	if err != nil {
		return err
	}
	if u.Seal && v.open > 0 {
		return errBusy
	}
	if u.Name != "" {
		if s.volumes[u.Name] != nil {
			return fmt.Errorf("%q exists", u.Name)
		}
		delete(s.volumes, name)
		v.info.Name, s.volumes[u.Name] = u.Name, v
	}
	if u.Attributes != nil {
		v.info.Attributes = u.Attributes
	}
	v.info.Sealed = v.info.Sealed || u.Seal
	return nil
}

func (s *memStore) Snapshot(_ context.Context, volume, snapshot string) error {
	defer s.mu.Unlock()
	if err := s.change(); err != nil {
		return err
	}
	v, err := s.find(volume)
	if err == nil {
		v.snaps[snapshot] = maps.Clone(v.pages)
	}
	return err
}

func (s *memStore) Delete(_ context.Context, name string) error {
	defer s.mu.Unlock()
	if err := s.change(); err != nil {
		return err
	}
	volume, snapshot, one := strings.Cut(name, "@")
	v, err := s.find(volume)
	switch {
	case err != nil:
		return err
	case one && v.snaps[snapshot] == nil:
		return errMissing
	case v.open > 0:
		return errBusy
	case one:
		delete(v.snaps, snapshot)
	default:
		delete(s.volumes, name)
	}
	return nil
}

func (s *memStore) Open(name, _ string) (Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.find(name)
	if err != nil {
		return nil, err
	}
	v.open++
	return &memHandle{s, v}, nil
}

func (s *memStore) CheckName(name string) error {
	if name == "" || strings.ContainsAny(name, "/@ ") {
		return fmt.Errorf("name %q: %w", name, ErrInvalid)
	}
	return nil
}

func (s *memStore) IsNotFound(err error) bool { return errors.Is(err, errMissing) }

// die makes every change after the next n fail; live ends that.
func (s *memStore) die(n int) { s.mu.Lock(); s.left = n; s.mu.Unlock() }
func (s *memStore) live()     { s.die(-1) }

// crash is what a new process finds: nothing is open.
func (s *memStore) crash() {
	s.live()
	for _, v := range s.volumes {
		v.open = 0
	}
}

type memHandle struct {
	s *memStore
	v *memVolume
}

func (h *memHandle) Size() int64 { return h.v.info.Size }

func (h *memHandle) ReadAt(p []byte, off int64) error {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if off+int64(len(p)) > h.v.info.Size {
		return ErrInvalid
	}
	for len(p) > 0 {
		skip := off % PageSize
		n := min(len(p), int(PageSize-skip))
		clear(p[:n])
		if page := h.v.pages[off-skip]; page != nil {
			copy(p[:n], page[skip:])
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (h *memHandle) WriteBatch(offs []int64, data [][]byte, errs []error) {
	err := h.s.change()
	defer h.s.mu.Unlock()
	for i, off := range offs {
		if errs[i] = err; err != nil {
			continue
		}
		if off%PageSize != 0 || len(data[i])%PageSize != 0 || off+int64(len(data[i])) > h.v.info.Size || h.v.info.Sealed {
			errs[i] = ErrInvalid
			continue
		}
		for at := 0; at < len(data[i]); at += PageSize {
			h.v.pages[off+int64(at)] = slices.Clone(data[i][at:][:PageSize])
		}
	}
}

func (h *memHandle) Trim(off, n int64) error {
	defer h.s.mu.Unlock()
	if err := h.s.change(); err != nil {
		return err
	}
	maps.DeleteFunc(h.v.pages, func(at int64, _ []byte) bool { return at >= off && at < off+n })
	return nil
}

func (h *memHandle) Extents(off, n int64, fn func(n int64, hole, zero bool) bool) error {
	for end := off + n; off < end; off += PageSize {
		h.s.mu.Lock()
		hole := h.v.pages[off] == nil
		h.s.mu.Unlock()
		if !fn(PageSize, hole, hole) {
			return nil
		}
	}
	return nil
}

func (h *memHandle) Flush() error {
	defer h.s.mu.Unlock()
	return h.s.change()
}

func (h *memHandle) Close() error {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.v.open--
	return nil
}

// newService is a service of a store.
func newService(t *testing.T, store *memStore, free FreePages) *Service {
	t.Helper()
	s := New(Config{Store: store, FreePages: free})
	t.Cleanup(s.Close)
	return s
}
