package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lsad/internal/blockdev"
	"lsad/internal/config"
	"lsad/lsa"
	"lsad/lsa/format"
	"lsad/server/admin"
)

// closeDevices closes what the array has and had.
func (s *server) closeDevices() error {
	s.membersMu.Lock()
	defer s.membersMu.Unlock()
	return s.devices.close()
}

// AddDevice implements admin.Devices. Cut short by a crash, either the array has the device and the data directory
// remembers it, or neither; a file may be left that can be added again.
func (b *backend) AddDevice(ctx context.Context, path string, size int64) (admin.Device, error) {
	s := b.server
	var made undo
	dev, err := s.newDevice(config.DeviceSpec{Path: path, Size: config.Size(size)}, &made)
	if err != nil {
		return admin.Device{}, admin.Wrap(admin.CodeInvalid, errors.Join(err, made.run()))
	}
	slot, err := s.array.AddDevice(ctx, dev, func() error {
		return s.changeMembers(func(m *members) { m.Devices = append(m.Devices, path) })
	})
	if slot == 0 && err != nil {
		return admin.Device{}, coded(errors.Join(err, dev.Close(), made.run()))
	}
	s.membersMu.Lock()
	s.devices = append(slices.Clone(s.devices), dev)
	s.membersMu.Unlock()
	if err := errors.Join(err, s.collector.add(slot, dev.Name())); err != nil {
		return admin.Device{}, coded(err)
	}
	s.log.Info("added a device", "device", path, "slot", slot)
	return b.device(slot), nil
}

// newDevice makes and opens a device that is to be added.
func (s *server) newDevice(spec config.DeviceSpec, made *undo) (blockdev.Device, error) {
	specs := []config.DeviceSpec{spec}
	if err := checkNewDevices(specs, config.Size(s.array.Status().SegmentSize), "lsad device add"); err != nil {
		return nil, err
	}
	if err := makeDevices(specs, made); err != nil {
		return nil, err
	}
	set, err := openDevices([]config.DeviceSpec{{Path: spec.Path}}, false, false)
	if err != nil {
		return nil, err
	}
	return set[0], nil
}

func (b *backend) device(slot int) admin.Device {
	for _, d := range b.Devices() {
		if d.Slot == slot {
			return d
		}
	}
	return admin.Device{Slot: slot}
}

// RemoveDevice implements admin.Devices.
func (b *backend) RemoveDevice(ctx context.Context, device string, force bool) (admin.Device, error) {
	s := b.server
	d, err := s.findDevice(device)
	if err != nil {
		return admin.Device{}, err
	}
	before := b.device(d.Slot)
	if err := s.collector.remove(d.Slot); err != nil {
		return admin.Device{}, err
	}
	gone, err := s.array.RemoveDevice(ctx, d.Slot, lsa.RemoveOptions{Force: force})
	if err != nil {
		if d.State == format.DeviceInService.String() {
			err = errors.Join(err, s.collector.add(d.Slot, d.Name))
		}
		return admin.Device{}, coded(err)
	}
	err = s.changeMembers(func(m *members) {
		m.Devices = slices.DeleteFunc(m.Devices, func(p string) bool { return samePath(p, gone.Name()) })
	})
	if err != nil {
		return before, fmt.Errorf("device %s is removed, but that is not remembered; name the others with --device at the next start: %w", gone.Name(), err)
	}
	s.membersMu.Lock()
	s.devices = slices.DeleteFunc(slices.Clone(s.devices), func(d blockdev.Device) bool { return d == gone })
	s.membersMu.Unlock()
	if err := s.collector.forget(gone.Name()); err != nil {
		s.log.Warn("what was set for the collection of a removed device is still remembered", "device", gone.Name(), "error", err)
	}
	s.log.Info("removed a device", "device", gone.Name(), "slot", d.Slot)
	return before, gone.Close()
}

func samePath(a, b string) bool {
	x, err1 := filepath.Abs(a)
	y, err2 := filepath.Abs(b)
	return err1 == nil && err2 == nil && x == y
}

// findDevice is the device that a user calls so: by its path, the last part of it if that is enough, its slot or its
// identity.
func (s *server) findDevice(name string) (lsa.DeviceInfo, error) {
	var found []lsa.DeviceInfo
	var there []string
	for _, d := range s.array.Devices() {
		if d.State == format.DeviceGone.String() {
			continue
		}
		there = append(there, fmt.Sprintf("%s (slot %d)", deviceName(&d), d.Slot))
		if strconv.Itoa(d.Slot) == name || d.ID == name || d.Name != "" && samePath(d.Name, name) {
			return d, nil
		}
		if filepath.Base(d.Name) == name {
			found = append(found, d)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	what := "the array has no such device"
	if len(found) > 1 {
		what = fmt.Sprintf("%d devices of the array are called so", len(found))
	}
	return lsa.DeviceInfo{}, admin.Errorf(admin.CodeNotFound, "device %q: %s; name one by its path or slot, as lsad device list shows them: there are %s", name, what, strings.Join(there, ", "))
}
