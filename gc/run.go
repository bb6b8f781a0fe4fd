package gc

import (
	"context"
	"time"
)

// Start runs the collector of every device, also of those added later, until ctx ends or Close.
func (c *Collector) Start(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx != nil {
		return
	}
	c.ctx = ctx
	for _, d := range c.devices {
		c.launch(d)
	}
}

// Wait returns when the ctx of Start has ended and every device has stopped.
func (c *Collector) Wait() { c.wg.Wait() }

// launch starts the goroutine of a device, owned by c.wg and by d.stop. c.mu is held.
func (c *Collector) launch(d *Device) {
	ctx, cancel := context.WithCancel(c.ctx)
	done := make(chan struct{})
	d.stop = func() { cancel(); <-done }
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		defer close(done)
		defer cancel()
		c.loop(ctx, d)
	}()
}

// loop does what Step says until ctx ends.
func (c *Collector) loop(ctx context.Context, d *Device) {
	defer d.halt()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		act := c.Step(d, now)
		if act.Release {
			d.target.Release()
		}
		if act.Collect {
			moved, err := d.target.Collect(ctx, act.Victim.ID, d)
			if ctx.Err() != nil {
				break // stopped half-way: no fault of the segment
			}
			d.Done(moved, err)
			continue
		}
		timer.Reset(max(0, act.Until.Sub(now)))
		select {
		case <-ctx.Done():
		case <-d.wake:
		case <-timer.C:
		}
	}
}

// halt leaves no collection behind when the loop of a device ends.
func (d *Device) halt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy, d.reason, d.run = false, None, run{}
	d.collecting.Store(false)
}
