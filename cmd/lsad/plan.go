package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lsad/internal/config"
)

// plan is which array a start opens or creates.
type plan struct {
	create  bool
	devices []config.DeviceSpec
	meta    []string            // directories of the metadata store, none for DIR/meta
	volumes []config.VolumeSpec // to be created if missing
}

// planArray decides from the settings and from what the data directory remembers (nil: nothing).
func planArray(c *config.Config, m *members) (plan, error) {
	devices, err := c.Devices()
	if err != nil {
		return plan{}, err
	}
	if where := metaFound(c); m == nil && where != "" {
		// Somebody lost array.toml. Nothing is created where an array's metadata is.
		if len(devices) == 0 {
			return plan{}, fmt.Errorf("%s is missing, but there is an array's metadata in %s: name its devices with --device", c.DirPath(memberFile), where)
		}
		m = &members{}
	}
	p := plan{create: m == nil || m.Creating, devices: devices, meta: c.Meta}
	if len(p.meta) == 0 && m != nil {
		p.meta = m.Meta
	}
	if p.volumes, err = c.Volumes(); err != nil {
		return p, err
	}
	if p.create {
		if c.Degraded {
			return p, fmt.Errorf("%s remembers no array that could be opened degraded; with --device the devices of one are named whose metadata is here, without --degraded a new array is made", c.Dir)
		}
		if len(devices) == 0 {
			p.devices = defaultDevices(c)
		}
		if len(p.volumes) == 0 {
			p.volumes = []config.VolumeSpec{{Name: defaultVolume, Size: 10 * config.GiB}}
		}
		return p, nil
	}
	if len(devices) == 0 {
		for _, path := range m.Devices {
			p.devices = append(p.devices, config.DeviceSpec{Path: path})
		}
	}
	return p, nil
}

// metaFound is a directory with the metadata of an array, "" for none.
func metaFound(c *config.Config) string {
	if dir := c.DirPath(metaDir); exists(dir) {
		return dir
	}
	for _, dir := range c.Meta {
		if exists(filepath.Join(dir, mirrorState)) {
			return dir
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// defaultVolume is made in a new array for which no volume is named.
const defaultVolume = "vol0"

// paths are the paths of the devices.
func (p *plan) paths() []string {
	var all []string
	for _, d := range p.devices {
		all = append(all, d.Path)
	}
	return all
}

// clearCutShort removes what a creation made that was cut short. Only files that it made itself are touched.
func (d *dataDir) clearCutShort(m *members) error {
	for _, path := range m.Made {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("clear up a creation that was cut short: %w", err)
		}
	}
	if err := d.removeMeta(m.Meta); err != nil {
		return fmt.Errorf("clear up a creation that was cut short: %w", err)
	}
	return d.removeMembers()
}
