package gc

import (
	"fmt"
	"strings"
	"time"
)

// Mode says which of the triggers work.
type Mode string

const (
	// Timed is the whole mechanism: timers and both pairs of thresholds.
	Timed Mode = "timed"
	// DefaultOnly turns timers and alternative thresholds off, for comparison: every collection is forced.
	DefaultOnly Mode = "default-only"
)

// Period is the time between two turns of a device. Zero means auto: it follows the measured fill rate.
type Period time.Duration

// String is the text form: a duration such as "1.5s", or "auto".
func (p Period) String() string {
	if p == 0 {
		return "auto"
	}
	return time.Duration(p).String()
}

// MarshalText implements encoding.TextMarshaler.
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// MinSetPeriod is the shortest period that can be set by hand: with a shorter one a timer would do nothing but run.
const MinSetPeriod = Period(time.Millisecond)

// UnmarshalText takes a duration or "auto". What is no period, or too short a one, is refused with ErrPeriod.
func (p *Period) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if s == "" || s == "auto" {
		*p = 0
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || Period(d) < MinSetPeriod {
		return fmt.Errorf("period %q: %w", s, ErrPeriod)
	}
	*p = Period(d)
	return nil
}

// Set and Type make a Period a command-line flag value.
func (p *Period) Set(s string) error { return p.UnmarshalText([]byte(s)) }

// Type names the kind of value in a usage text.
func (p *Period) Type() string { return "duration" }

// Config is everything about collection that can be set. The zero Config is the default and works for any
// number of devices of any size.
type Config struct {
	Mode      Mode   `toml:"mode,omitempty" json:"mode,omitempty"`           // Timed if empty
	Period    Period `toml:"period,omitempty" json:"period,omitzero"`        // of every device; auto if zero
	Policy    string `toml:"policy,omitempty" json:"policy,omitempty"`       // victim policy; DefaultPolicy if empty
	Placement string `toml:"placement,omitempty" json:"placement,omitempty"` // DefaultPlacement if empty
	// Thresholds of every device that sets none of its own.
	Thresholds Thresholds `toml:"thresholds,omitempty" json:"thresholds,omitzero"`
	// Devices by name: what differs from the above. A device that is not there yet may be named.
	Devices map[string]DeviceConfig `toml:"devices,omitempty" json:"devices,omitempty"`
}

// DeviceConfig is what is set for one device by hand.
type DeviceConfig struct {
	Thresholds Thresholds `toml:"thresholds,omitempty" json:"thresholds,omitzero"`
	// Period of this device alone; its turns then no longer keep their distance from those of the others.
	Period Period `toml:"period,omitempty" json:"period,omitzero"`
	// Phase is when in the period its turn comes, 0 <= Phase < 1; by default device i of N has i/N.
	Phase *float64 `toml:"phase,omitempty" json:"phase,omitempty"`
}

// Defaults of the policies; docs/decisions/0102-placement.md says why these.
const (
	DefaultPolicy    = "cost-benefit"
	DefaultPlacement = "interval"
)

// Normal is c with the defaults filled in.
func (c Config) Normal() Config {
	if c.Mode == "" {
		c.Mode = Timed
	}
	if c.Policy == "" {
		c.Policy = DefaultPolicy
	}
	if c.Placement == "" {
		c.Placement = DefaultPlacement
	}
	return c
}

// Validate refuses what no device could work with, naming the setting and the reason. What depends on the size
// of a device is checked by Thresholds.Resolve when the device is there.
func (c Config) Validate() error {
	c = c.Normal()
	if c.Mode != Timed && c.Mode != DefaultOnly {
		return fmt.Errorf("gc mode %q, want %s or %s: %w", c.Mode, Timed, DefaultOnly, ErrUnknown)
	}
	if c.Period != 0 && c.Period < MinSetPeriod {
		return fmt.Errorf("gc period %v: %w", c.Period, ErrPeriod)
	}
	if _, err := NewPolicy(c.Policy, 0); err != nil {
		return fmt.Errorf("gc settings: %w", err)
	}
	if _, err := NewPlacement(c.Placement); err != nil {
		return fmt.Errorf("gc settings: %w", err)
	}
	for name, d := range c.Devices {
		if d.Period != 0 && d.Period < MinSetPeriod {
			return fmt.Errorf("gc period %v of device %s: %w", d.Period, name, ErrPeriod)
		}
		if d.Phase != nil && !(*d.Phase >= 0 && *d.Phase < 1) {
			return fmt.Errorf("gc phase %v of device %s: %w", *d.Phase, name, ErrPhase)
		}
	}
	return nil
}

// limits resolves the thresholds of one device.
func (c Config) limits(name string, total int) (Limits, error) {
	l, err := c.Devices[name].Thresholds.Or(c.Thresholds).Resolve(total)
	if err != nil {
		return Limits{}, fmt.Errorf("gc thresholds of device %s: %w", name, err)
	}
	return l, nil
}
