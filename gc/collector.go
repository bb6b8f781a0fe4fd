package gc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Collector holds the collectors of the devices of one array, and what they share: the settings, the placement
// and the period of the timers. It takes no part in when a device collects.
type Collector struct {
	placement atomic.Pointer[Placement]
	segments  atomic.Int64 // of all devices

	mu      sync.Mutex
	cfg     Config
	devices []*Device // in the order of their turns
	sched   schedule
	changed time.Time // when the period last changed
	weighed time.Time // when the period was last shared out

	ctx context.Context // of Start; nil before
	wg  sync.WaitGroup
}

// New makes a collector without devices.
func New(cfg Config, now time.Time) (*Collector, error) {
	c := &Collector{sched: schedule{base: now, period: firstPeriod}, changed: now}
	if err := c.Configure(cfg, now); err != nil {
		return nil, err
	}
	return c, nil
}

// Placement is the placement in force.
func (c *Collector) Placement() Placement { return *c.placement.Load() }

// Config is a copy of the settings in force, as they were given.
func (c *Collector) Config() Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg := c.cfg
	cfg.Devices = maps.Clone(cfg.Devices)
	return cfg
}

// Configure checks new settings against every device and takes them over, all or none.
func (c *Collector) Configure(cfg Config, now time.Time) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	n := cfg.Normal()
	c.mu.Lock()
	defer c.mu.Unlock()
	limits := make([]Limits, len(c.devices))
	for i, d := range c.devices {
		l, err := cfg.limits(d.Name(), d.target.Count().Total)
		if err != nil {
			return err
		}
		limits[i] = l
	}
	if p := c.placement.Load(); p == nil || (*p).Name() != n.Placement {
		p, err := NewPlacement(n.Placement)
		if err != nil {
			return err
		}
		c.placement.Store(&p)
	}
	switch {
	case n.Period == 0 && c.cfg.Period != 0: // what was set says nothing about the load, and may be years
		c.sched, c.changed = c.sched.with(firstPeriod, now), now
	case n.Period != 0:
		c.sched = c.sched.with(time.Duration(n.Period), now)
	}
	c.cfg = cfg
	c.cfg.Devices = maps.Clone(cfg.Devices)
	for i, d := range c.devices {
		d.setLimits(limits[i])
	}
	c.arrange(now)
	return nil
}

// Add begins to look after a device. The error wraps ErrExists or one of the reasons of Thresholds.Resolve.
func (c *Collector) Add(t Target, now time.Time) (*Device, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.find(t.Name()) >= 0 {
		return nil, fmt.Errorf("add device %s to collection: %w", t.Name(), ErrExists)
	}
	limits, err := c.cfg.limits(t.Name(), t.Count().Total)
	if err != nil {
		return nil, err
	}
	d, err := newDevice(t, c.cfg.Normal().Policy)
	if err != nil {
		return nil, err
	}
	d.setLimits(limits)
	c.devices = append(c.devices, d)
	c.arrange(now)
	if c.ctx != nil {
		c.launch(d)
	}
	return d, nil
}

// Remove stops looking after a device; it waits for its collection to stop.
func (c *Collector) Remove(name string, now time.Time) error {
	c.mu.Lock()
	i := c.find(name)
	if i < 0 {
		c.mu.Unlock()
		return fmt.Errorf("remove device %s from collection: %w", name, ErrUnknown)
	}
	d := c.devices[i]
	c.devices = slices.Delete(c.devices, i, i+1)
	c.arrange(now)
	c.mu.Unlock()
	if d.stop != nil {
		d.stop()
	}
	return nil
}

func (c *Collector) find(name string) int {
	return slices.IndexFunc(c.devices, func(d *Device) bool { return d.Name() == name })
}

// Device finds a device by name. The error wraps ErrUnknown.
func (c *Collector) Device(name string) (*Device, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.find(name); i >= 0 {
		return c.devices[i], nil
	}
	return nil, fmt.Errorf("gc device %s: %w", name, ErrUnknown)
}

// Period is the period of the timers in force.
func (c *Collector) Period() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sched.period
}

// Status is a snapshot of every device, in the order of their turns.
func (c *Collector) Status(now time.Time) []Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Status, len(c.devices))
	for i, d := range c.devices {
		all[i] = d.Status(now)
	}
	return all
}

// arrange gives each device its mode, its policy, its offset and its schedule. c.mu is held.
func (c *Collector) arrange(now time.Time) {
	n := c.cfg.Normal()
	slots := 1 / float64(max(1, len(c.devices)))
	total := 0
	for _, d := range c.devices {
		total += d.target.Count().Total
	}
	c.segments.Store(int64(total))
	for i, d := range c.devices {
		dc := n.Devices[d.Name()]
		offset := float64(i) * slots
		if dc.Phase != nil {
			offset = *dc.Phase
		}
		sched, own := c.sched, dc.Period != 0
		if own {
			sched = schedule{base: now, turn: c.sched.at(now), period: time.Duration(dc.Period)}
		}
		d.arrange(now, n, sched, own, offset, slots)
	}
}

func (d *Device) setLimits(l Limits) {
	d.mu.Lock()
	d.limits = l
	d.mu.Unlock()
}

func (d *Device) arrange(now time.Time, cfg Config, s schedule, own bool, offset, slot float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.policy.Name() != cfg.Policy {
		if p, err := NewPolicy(cfg.Policy, 0); err == nil { // the name was checked before
			d.policy = p
		}
	}
	d.mode, d.own, d.slot = cfg.Mode, own, slot
	if own && s.period == d.sched.period {
		s = d.sched // nothing changed: its turn stays
	}
	if offset != d.offset || own || d.armed.IsZero() {
		d.sched, d.offset, d.due = s, offset, 0
		d.arm(now)
	}
	d.sched = s
	d.Changed()
}

// Step moves one device on: see Action. Whoever drives devices without Start (the simulator) calls it when
// Action.Until has come, when the device's counts changed, and after Done.
func (c *Collector) Step(d *Device, now time.Time) Action {
	act := d.step(now)
	if act.Collect {
		c.Placement().Victim(d.target.Now(), act.Victim, int(c.segments.Load()))
	}
	c.tune(now)
	return act
}

// tune lets the period follow the fill rate. It reads what each device measured; it touches no collection.
func (c *Collector) tune(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cfg.Normal().Mode != Timed {
		return
	}
	c.weigh(now)
	if c.cfg.Period != 0 {
		return
	}
	wish := time.Duration(0)
	for _, d := range c.devices {
		if w := d.wish(now); w > 0 && (wish == 0 || w < wish) {
			wish = w
		}
	}
	if wish == 0 {
		return
	}
	period := retune(c.sched.period, wish, now.Sub(c.changed))
	if period == c.sched.period {
		return
	}
	c.sched, c.changed = c.sched.with(period, now), now
	for _, d := range c.devices {
		d.follow(c.sched)
		d.Changed()
	}
}
