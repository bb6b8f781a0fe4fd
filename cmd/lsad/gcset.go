package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"lsad/gc"
	"lsad/server/admin"
)

// Settings of the garbage collection, by the name of their flag. Those of the first list hold for the array, those
// of the second for a device or, without one, for all.
var (
	gcArraySettings  = []string{"mode", "policy", "placement"}
	gcDeviceSettings = []string{"period", "phase", "low", "high", "alt-low", "alt-high"}
)

// GCSet implements admin.Collector: all of a change or nothing, remembered for the next start.
func (c *collector) GCSet(change admin.GCChange) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(change.Set) == 0 {
		return admin.Errorf(admin.CodeInvalid, "nothing to set")
	}
	old := c.gc.Config()
	next := old
	next.Devices = maps.Clone(old.Devices)
	if err := c.apply(&next, change); err != nil {
		return admin.Wrap(admin.CodeInvalid, err)
	}
	if err := c.gc.Configure(next, time.Now()); err != nil {
		return admin.Wrap(admin.CodeInvalid, err)
	}
	if err := c.server.changeMembers(func(m *members) { m.GC = next }); err != nil {
		return fmt.Errorf("the setting holds, but only until the server stops: %w", err)
	}
	c.log.Info("changed settings of the garbage collection", "device", change.Device, "set", change.Set)
	return nil
}

func (c *collector) apply(next *gc.Config, change admin.GCChange) error {
	for key, value := range change.Set {
		if err := c.applyOne(next, change.Device, key, strings.TrimSpace(value)); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

func (c *collector) applyOne(next *gc.Config, device, key, value string) error {
	if device == "" {
		switch key {
		case "mode":
			next.Mode = gc.Mode(value)
			return nil
		case "policy":
			next.Policy = value
			return nil
		case "placement":
			next.Placement = value
			return nil
		case "phase":
			return fmt.Errorf("a phase is set for one device: name it")
		case "period":
			return next.Period.UnmarshalText([]byte(value))
		}
		return setThreshold(&next.Thresholds, key, value)
	}
	d, err := c.find(device)
	if err != nil {
		return err
	}
	if slices.Contains(gcArraySettings, key) {
		return fmt.Errorf("it holds for all devices: name none")
	}
	dc := next.Devices[d.Name()]
	switch key {
	case "period":
		err = dc.Period.UnmarshalText([]byte(value))
	case "phase":
		dc.Phase, err = parsePhase(value)
	default:
		err = setThreshold(&dc.Thresholds, key, value)
	}
	if next.Devices == nil {
		next.Devices = map[string]gc.DeviceConfig{}
	}
	next.Devices[d.Name()] = dc
	return err
}

func parsePhase(value string) (*float64, error) {
	if value == "" {
		return nil, nil
	}
	v, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", value, gc.ErrPhase)
	}
	return &v, nil
}

func setThreshold(t *gc.Thresholds, key, value string) error {
	to := map[string]*gc.Amount{"low": &t.Low, "high": &t.High, "alt-low": &t.AltLow, "alt-high": &t.AltHigh}[key]
	if to == nil {
		return fmt.Errorf("there is no such setting; there are %s", strings.Join(append(slices.Clone(gcArraySettings), gcDeviceSettings...), ", "))
	}
	return to.UnmarshalText([]byte(value))
}
