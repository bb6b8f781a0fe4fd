package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"lsad/internal/blockdev"
	"lsad/internal/config"
)

// defaultDevices are the device files of a new array for which none are named.
func defaultDevices(c *config.Config) []config.DeviceSpec {
	var specs []config.DeviceSpec
	for i := range 4 {
		specs = append(specs, config.DeviceSpec{Path: c.DirPath(fmt.Sprintf("dev%d", i)), Size: 4 * config.GiB})
	}
	return specs
}

// deviceSet is open devices.
type deviceSet []blockdev.Device

func (s deviceSet) close() error {
	var errs []error
	for _, d := range s {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

func (s deviceSet) paths() []string {
	var all []string
	for _, d := range s {
		all = append(all, d.Name())
	}
	return all
}

// openDevices opens the devices of an existing array. With missingOK those that do not exist are left out.
func openDevices(specs []config.DeviceSpec, readOnly, missingOK bool) (set deviceSet, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, set.close())
			set = nil
		}
	}()
	for _, spec := range specs {
		d, err := blockdev.OpenFile(spec.Path, blockdev.FileOptions{ReadOnly: readOnly})
		switch {
		case errors.Is(err, fs.ErrNotExist) && missingOK:
			continue
		case errors.Is(err, fs.ErrNotExist):
			return set, fmt.Errorf("%w; bring it back, or say with --device where the devices are; if it is lost, lsad serve --degraded opens the array without it", err)
		case errors.Is(err, blockdev.ErrLocked):
			return set, fmt.Errorf("%w; another lsad or a mount has it: stop that first", err)
		case err != nil:
			return set, err
		}
		slow, err := slowed(d)
		if err != nil {
			return set, errors.Join(err, d.Close())
		}
		set = append(set, slow)
		if spec.Size != 0 && d.Size() != int64(spec.Size) {
			return set, fmt.Errorf("device %s has %d bytes, and not the %v asked for; leave the size away, or see whether it was truncated", spec.Path, d.Size(), spec.Size)
		}
	}
	if len(set) == 0 {
		return nil, errors.New("none of the array's devices exists")
	}
	return set, nil
}

// minSegments is how many segments a device must have room for; lsa refuses fewer, but after the file was made.
const minSegments = 8

// checkNewDevices refuses what creating would stumble over, before anything is made.
// The command is what takes PATH:SIZE.
func checkNewDevices(specs []config.DeviceSpec, segment config.Size, command string) error {
	for _, spec := range specs {
		info, err := os.Stat(spec.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && spec.Size == 0:
			return fmt.Errorf("device %s does not exist; to make it, give its size: %s %s:4GiB", spec.Path, command, spec.Path)
		case errors.Is(err, fs.ErrNotExist):
			if need := config.MiB + minSegments*segment; spec.Size < need {
				return fmt.Errorf("device %s: %v is too small: it takes %v for the segments of %v; make it larger, or choose a smaller --segment-size",
					spec.Path, spec.Size, need, segment)
			}
		case err != nil:
			return fmt.Errorf("device: %w", err)
		case info.Mode().IsRegular() && spec.Size != 0:
			return fmt.Errorf("device %s exists already; to use it as it is, leave the size away; to make a new one, remove it first", spec.Path)
		}
	}
	return nil
}

// makeDevices makes the files that are to be made.
func makeDevices(specs []config.DeviceSpec, made *undo) error {
	for _, spec := range specs {
		if spec.Size == 0 {
			continue
		}
		if _, err := os.Stat(spec.Path); err == nil {
			continue // a block device with its size
		}
		switch err := blockdev.CreateFile(spec.Path, int64(spec.Size)); {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w; make its directory first", err)
		case errors.Is(err, unix.EFBIG):
			return fmt.Errorf("%w: the file system takes no file of %v; several smaller devices do as well", err, spec.Size)
		case err != nil:
			return err
		}
		made.add(func() error { return os.Remove(spec.Path) })
	}
	return nil
}
