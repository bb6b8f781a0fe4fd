package admin

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// fakeArray is an Array of volumes in memory, which remembers what it was asked.
type fakeArray struct {
	mu      sync.Mutex
	volumes []Volume
	calls   []string
	sick    error
	changes []GCChange
}

func (f *fakeArray) note(call ...string) {
	f.calls = append(f.calls, strings.Join(call, " "))
}

func (f *fakeArray) Status() Status {
	return Status{Version: "test", State: "serving", SizeBytes: 100, Devices: f.Devices(), Recovery: Recovery{Clean: true, Seconds: 0.5}}
}
func (f *fakeArray) Counters() Counters { return Counters{UserBytes: 12345, MapCacheHits: 7} }
func (f *fakeArray) Health() error      { return f.sick }
func (f *fakeArray) Devices() []Device {
	return []Device{
		{Name: "dev0", State: "in service", InService: true, Segments: 9, Unused: 4},
		{Slot: 1, Name: "removed", State: stateGone, Segments: 9},
	}
}
func (f *fakeArray) Connections() []Connection { return nil }

func (f *fakeArray) Volumes() []Volume {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.volumes)
}

func (f *fakeArray) find(name string) int {
	return slices.IndexFunc(f.volumes, func(v Volume) bool { return v.Name == name })
}

func (f *fakeArray) Volume(name string) (Volume, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := f.find(name); i >= 0 {
		return f.volumes[i], nil
	}
	return Volume{}, Errorf(CodeNotFound, "volume %s: not found", name)
}

func (f *fakeArray) CreateVolume(_ context.Context, name string, size int64, copies int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.find(name) >= 0 {
		return Errorf(CodeExists, "volume %s: exists", name)
	}
	f.volumes = append(f.volumes, Volume{Name: name, SizeBytes: size, Copies: copies, Created: time.Unix(1, 0).UTC()})
	return nil
}

func (f *fakeArray) ResizeVolume(_ context.Context, name string, size int64, force bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.find(name)
	if size < f.volumes[i].SizeBytes && !force {
		return Errorf(CodeInvalid, "shrink needs force")
	}
	f.volumes[i].SizeBytes = size
	return nil
}

func (f *fakeArray) RenameVolume(_ context.Context, from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.volumes[f.find(from)].Name = to
	return nil
}

func (f *fakeArray) DeleteVolume(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("delete", name)
	if strings.Contains(name, "busy") {
		return Errorf(CodeInUse, "volume %s: in use by 10.0.0.1", name)
	}
	if strings.Contains(name, "broken") {
		return errors.New("a bare error")
	}
	return nil
}

func (f *fakeArray) Snapshot(_ context.Context, volume, snapshot string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.find(volume)
	f.volumes[i].Snapshots = append(f.volumes[i].Snapshots, Snapshot{Name: snapshot})
	return nil
}

func (f *fakeArray) Clone(ctx context.Context, volume, snapshot, name string) error {
	if err := f.CreateVolume(ctx, name, 1, 1); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.volumes[f.find(name)].Origin = volume + "@" + snapshot
	return nil
}

func (f *fakeArray) Revert(_ context.Context, volume, snapshot string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("revert", volume, snapshot)
	return nil
}

func (f *fakeArray) GCStatus() []GCDevice {
	return []GCDevice{{Device: "dev0", State: "none", Low: 4, Totals: GCTotals{Early: 3, MovedBytes: 4096}}}
}
func (f *fakeArray) GCRun(device string) error {
	if device != "" && device != "dev0" {
		return Errorf(CodeNotFound, "device %s: not found", device)
	}
	return nil
}
func (f *fakeArray) GCSet(c GCChange) error {
	f.changes = append(f.changes, c)
	return nil
}
