package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"lsad/gc"
	"lsad/lsa/format"
	"lsad/server/admin"
)

// collector connects the garbage collection to the array: it is what gc calls a target for each device, what the array
// calls its events and its placement, and what the administration calls a collector.
//
// Locks: mu guards changes of the settings and is taken before every other; events take none.
type collector struct {
	server  *server
	log     *slog.Logger
	devices atomic.Pointer[[]*gc.Device] // by slot; nil where absent; none before start
	release chan struct{}
	placer  placer

	mu sync.Mutex
	gc *gc.Collector
	wg sync.WaitGroup
}

func newCollector(s *server) *collector {
	return &collector{server: s, log: s.log, release: make(chan struct{}, 1)}
}

// start begins to collect, if the array can be written.
func (c *collector) start() error {
	var err error
	now := time.Now()
	if c.gc, err = gc.New(c.server.gcSettings(), now); err != nil {
		return fmt.Errorf("garbage collection: %w", err)
	}
	c.placer.gc.Store(c.gc)
	array := c.server.array
	st := array.Status()
	devices := make([]*gc.Device, len(st.Devices))
	for i, d := range st.Devices {
		if d.State != format.DeviceInService.String() || st.ReadOnly {
			continue
		}
		if devices[i], err = c.lookAfter(i, d.Name, now); err != nil {
			return fmt.Errorf("garbage collection: %w", err)
		}
	}
	c.devices.Store(&devices)
	ctx, cancel := context.WithCancel(context.Background())
	c.gc.Start(ctx)
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		c.releaseLoop(ctx)
	}()
	c.server.ends.add(func() error {
		cancel()
		c.gc.Wait()
		c.wg.Wait()
		return nil
	})
	return nil
}

func (c *collector) target(slot int, device string) *gcTarget {
	return &gcTarget{array: c.server.array, slot: slot, name: c.server.dir.relative([]string{device})[0], release: c.release}
}

// add looks after a device that was added, or whose removal failed.
func (c *collector) add(slot int, device string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, err := c.lookAfter(slot, device, time.Now())
	if err == nil {
		c.set(slot, d)
	}
	return err
}

// lookAfter adds a device to the collection. Marks that were set when the array had other devices may not fit this one. That
// is no reason to serve nothing: it has the default ones then.
func (c *collector) lookAfter(slot int, device string, now time.Time) (*gc.Device, error) {
	t := c.target(slot, device)
	d, err := c.gc.Add(t, now)
	if err == nil || errors.Is(err, gc.ErrExists) {
		return d, err
	}
	limits := gc.DefaultLimits(t.Count().Total)
	cfg := c.gc.Config()
	own := cfg.Devices[t.Name()]
	own.Thresholds = limits.Thresholds()
	if cfg.Devices == nil {
		cfg.Devices = map[string]gc.DeviceConfig{}
	}
	cfg.Devices[t.Name()] = own
	c.log.Warn("the thresholds that are set do not fit a device, which has the default ones; lsad gc set changes them",
		"device", device, "low", limits.Low, "high", limits.High, "alt_low", limits.AltLow, "alt_high", limits.AltHigh, "reason", err)
	if err := c.gc.Configure(cfg, now); err != nil {
		return nil, err
	}
	return c.gc.Add(t, now)
}

// forget drops what was set for a device that was removed: another one may come to be called so.
func (c *collector) forget(device string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg := c.gc.Config()
	name := c.target(0, device).name
	if _, ok := cfg.Devices[name]; !ok {
		return nil
	}
	delete(cfg.Devices, name)
	if err := c.gc.Configure(cfg, time.Now()); err != nil {
		return err
	}
	return c.server.changeMembers(func(m *members) { m.GC = cfg })
}

// remove looks after a device no more; nothing of it is being collected then.
func (c *collector) remove(slot int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := *c.devices.Load()
	if slot >= len(all) || all[slot] == nil {
		return nil
	}
	d := all[slot]
	c.set(slot, nil)
	return c.gc.Remove(d.Name(), time.Now())
}

// set replaces the list, which is read without a lock.
func (c *collector) set(slot int, d *gc.Device) {
	old := *c.devices.Load()
	all := make([]*gc.Device, max(len(old), slot+1))
	copy(all, old)
	all[slot] = d
	c.devices.Store(&all)
}

// Checkpoints that are made only because a device wants its emptied segments are at least releaseEvery apart, and so far
// that they take a releaseShare-th of the time. Much rarer, and a writer that needs a segment has to wait for one.
const (
	releaseEvery = 100 * time.Millisecond
	releaseShare = 4
)

// releaseLoop makes checkpoints when a device wants its emptied segments.
func (c *collector) releaseLoop(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.release:
		}
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		begin := time.Now()
		if err := c.server.array.Checkpoint(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("a checkpoint for the garbage collection failed", "error", err)
		}
		c.SpaceWanted() // the counts have changed
		pause.Reset(max(releaseEvery, (releaseShare-1)*time.Since(begin)))
	}
}

// SegmentUsed implements lsa.Events.
func (c *collector) SegmentUsed(slot, _ int) {
	if all := c.devices.Load(); all != nil && slot < len(*all) && (*all)[slot] != nil {
		(*all)[slot].Changed()
	}
}

// SpaceWanted implements lsa.Events.
func (c *collector) SpaceWanted() {
	if all := c.devices.Load(); all != nil {
		for _, d := range *all {
			if d != nil {
				d.Changed()
			}
		}
	}
}

// GCStatus implements admin.Collector.
func (c *collector) GCStatus() []admin.GCDevice {
	var out []admin.GCDevice
	for _, s := range c.gc.Status(time.Now()) {
		d := admin.GCDevice{
			Device: s.Device, Mode: string(s.Mode), Policy: s.Policy, State: s.State.String(),
			Unused: s.Unused, Pending: s.Pending, Total: s.Total,
			Low: s.Limits.Low, High: s.Limits.High, AltLow: s.Limits.AltLow, AltHigh: s.Limits.AltHigh,
			PeriodSeconds: s.Period.Seconds(), Phase: s.Phase, TimeLeftSeconds: s.TimeLeft.Seconds(),
			Share: s.Share, FillPerSecond: s.Fill, LastError: s.LastError, Recent: []admin.GCRun{},
			Totals: admin.GCTotals{
				Early: s.Totals.Early, Forced: s.Totals.Forced, Manual: s.Totals.Manual, Segments: s.Totals.Segments,
				MovedBytes: int64(s.Totals.Moved) * format.BlockSize, Errors: s.Totals.Errors, Seconds: s.Totals.Time.Seconds(),
			},
		}
		for _, r := range s.Recent {
			d.Recent = append(d.Recent, admin.GCRun{
				Reason: r.Reason.String(), Began: r.Began, Seconds: r.Took.Seconds(), Segments: r.Segments, MovedBytes: int64(r.Moved) * format.BlockSize,
			})
		}
		out = append(out, d)
	}
	return out
}

// find is the device that a user calls so, as the other commands take it.
func (c *collector) find(name string) (*gc.Device, error) {
	d, err := c.server.findDevice(name)
	if err != nil {
		return nil, err
	}
	if all := *c.devices.Load(); d.Slot < len(all) && all[d.Slot] != nil {
		return all[d.Slot], nil
	}
	return nil, admin.Errorf(admin.CodeInvalid, "device %q: nothing is collected on it: it is %s", name, d.State)
}

// GCRun implements admin.Collector.
func (c *collector) GCRun(device string) error {
	if device != "" {
		d, err := c.find(device)
		if err != nil {
			return err
		}
		d.Request()
		return nil
	}
	for _, d := range *c.devices.Load() {
		if d != nil {
			d.Request()
		}
	}
	return nil
}
