package gc

import (
	"math"
	"time"
)

// Turns are equally long, i*T/N, until the devices prove to be different: a slow or a large device needs more of
// the period. Then the array's setting of who has which part of the period follows, slowly, what each device
// measured of itself. As with the period, that is all that they share.
const (
	weighEvery = 4    // periods
	evenPart   = 0.25 // of the period is shared out evenly, whatever the devices need
	weighStep  = 0.25 // of the way towards the latest measurement
	misfit     = 0.25 // relative change of a slot that is worth moving the turns
)

// weigh shares out the period by need. c.mu is held.
func (c *Collector) weigh(now time.Time) {
	n := len(c.devices)
	if n < 2 || now.Sub(c.weighed) < weighEvery*c.sched.period || c.phasesByHand() {
		return
	}
	c.weighed = now
	sum := 0.0
	for _, d := range c.devices {
		need := d.need()
		if need == 0 {
			return // not all are known yet
		}
		if d.weight == 0 {
			d.weight = need
		}
		d.weight += (need - d.weight) * weighStep
		sum += d.weight
	}
	moved := false
	slots := make([]float64, n)
	for i, d := range c.devices {
		slots[i] = evenPart/float64(n) + (1-evenPart)*d.weight/sum
		moved = moved || math.Abs(slots[i]-d.slot) > misfit*d.slot
	}
	if !moved {
		return
	}
	offset := 0.0
	for i, d := range c.devices {
		d.shift(offset, slots[i])
		offset += slots[i]
	}
}

// phasesByHand reports that a device has a phase or a period of its own. c.mu is held.
func (c *Collector) phasesByHand() bool {
	for _, d := range c.devices {
		if dc := c.cfg.Devices[d.Name()]; dc.Phase != nil || dc.Period != 0 {
			return true
		}
	}
	return false
}

// need is the share of its time that the device would collect at full pace, or 0 if that is not known.
func (d *Device) need() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.fill.known() {
		return 0
	}
	return d.workPerSegment * d.fill.slow.rate() / float64(time.Second)
}

// shift moves the device's turn within the period. The turn that is due moves along.
func (d *Device) shift(offset, slot float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.due += offset - d.offset
	d.offset, d.slot = offset, slot
	d.Changed()
}
