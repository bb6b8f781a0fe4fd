package sim

import (
	"fmt"
	"math"
	"time"

	"lsad/gc"
)

// Spec describes the simulated array.
type Spec struct {
	Devices       int     `json:"devices"`
	Segments      int     `json:"segments"`       // per device
	SegmentBlocks int     `json:"segment_blocks"` // blocks per segment
	Blocks        int     `json:"blocks"`         // logical blocks; 0: from Utilisation
	Utilisation   float64 `json:"utilisation"`    // share of the capacity that holds live blocks, all copies counted
	Copies        int     `json:"copies"`         // 1 or 2
	Sizes         []int   `json:"sizes,omitempty"`
	GC            gc.Config
}

// copyBit of an owner says that a place holds the second copy.
const copyBit = 1 << 31

// Array is the simulated array: the map, the devices and the collector. A place in the map is a device in the
// top byte and a place on it in the rest.
type Array struct {
	spec      Spec
	devs      []*device
	maps      [2][]uint64
	written   []uint32 // LSN of each block's version
	lsn       uint64
	gc        *gc.Collector
	placement gc.Placement

	// Write steering: the device that takes the current stretch, and what is left of it.
	target  [2]int
	stretch [2]int
	credit  []float64

	userWrites, gcWrites uint64
	onTook, onEmptied    func(*device)
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const mapNowhere = math.MaxUint64

// NewArray makes an empty array.
func NewArray(s Spec) (*Array, error) {
	if s.Copies == 0 {
		s.Copies = 1
	}
	sizes := s.Sizes
	if sizes == nil {
		for range s.Devices {
			sizes = append(sizes, s.Segments)
		}
	}
	total := 0
	for _, n := range sizes {
		total += n * s.SegmentBlocks
	}
	if s.Blocks == 0 {
		s.Blocks = int(s.Utilisation * float64(total) / float64(s.Copies))
	}
	switch {
	case len(sizes) < 1 || len(sizes) > 255 || s.Copies < 1 || s.Copies > 2 || len(sizes) < s.Copies:
		return nil, fmt.Errorf("simulated array of %d devices, %d copies: want 1 to 255 devices, 1 or 2 copies, and a device for each", len(sizes), s.Copies)
	case s.Blocks < 1 || s.Blocks*s.Copies >= total || s.Blocks >= copyBit:
		return nil, fmt.Errorf("simulated array: %d blocks, %d copies, do not fit into %d places", s.Blocks, s.Copies, total)
	}
	s.Utilisation = float64(s.Blocks*s.Copies) / float64(total)
	a := &Array{spec: s, written: make([]uint32, s.Blocks), credit: make([]float64, len(sizes)), onTook: func(*device) {}, onEmptied: func(*device) {}}
	for c := range s.Copies {
		a.maps[c] = make([]uint64, s.Blocks)
		for i := range a.maps[c] {
			a.maps[c][i] = mapNowhere
		}
	}
	var err error
	if a.gc, err = gc.New(s.GC, epoch); err != nil {
		return nil, err
	}
	a.placement = a.gc.Placement()
	for i, n := range sizes {
		d := newDevice(a, i, deviceName(i), n, s.SegmentBlocks)
		if d.gc, err = a.gc.Add(d, epoch); err != nil {
			return nil, err
		}
		a.devs = append(a.devs, d)
	}
	return a, nil
}

func deviceName(i int) string { return fmt.Sprintf("dev%d", i) }

// at reports whether the map refers to a place.
func (a *Array) at(d *device, place uint32) bool {
	o := d.owner[place]
	return a.maps[o>>31][o&^copyBit] == uint64(d.index)<<32|uint64(place)
}

// move relocates the block at a place within its device.
func (a *Array) move(d *device, place uint32, class int) error {
	o := d.owner[place]
	block := o &^ copyBit
	to := a.placement.Place(gc.Block{Now: a.lsn, Written: uint64(a.written[block]), Known: true, Class: class, Collected: true})
	at, err := d.append(to, o)
	if err != nil {
		return err
	}
	a.gcWrites++
	a.maps[o>>31][block] = uint64(d.index)<<32 | uint64(at)
	d.dead(place)
	return nil
}

// stretchBlocks is how many blocks go to one device before the next takes its turn.
const stretchBlocks = 32

// pick chooses the device for a copy of the next block: by free space, a stretch each, none that is collecting
// unless all are, never the device not.
func (a *Array) pick(c, not int) int {
	if d := a.devs[a.target[c]]; a.stretch[c] > 0 && a.target[c] != not && !d.gc.Collecting() && !d.tight() {
		a.stretch[c]--
		return a.target[c]
	}
	best := -1
	for wish := range 3 { // one that neither collects nor lacks room, one that has room, any
		sum := 0.0
		for i, d := range a.devs {
			if i == not || wish < 1 && d.gc.Collecting() || wish < 2 && d.tight() {
				continue
			}
			w := float64(len(d.segs)*d.per - d.live)
			sum += w
			a.credit[i] += w
			if best < 0 || a.credit[i] > a.credit[best] {
				best = i
			}
		}
		if best >= 0 {
			a.credit[best] -= sum
			break
		}
	}
	a.target[c], a.stretch[c] = best, stretchBlocks-1
	return best
}

// Write writes one block. It returns the devices that took it; an error means that a device is full.
func (a *Array) Write(block uint32) (to [2]int, err error) {
	a.lsn++
	not := -1
	for c := range a.spec.Copies {
		dev := a.pick(c, not)
		d := a.devs[dev]
		b := gc.Block{Now: a.lsn, Written: uint64(a.written[block])}
		old := a.maps[c][block]
		var oldDev *device
		if old != mapNowhere {
			oldDev = a.devs[old>>32]
			b.Known, b.Class = true, int(oldDev.segs[uint32(old)/uint32(oldDev.per)].class)
		}
		place, err := d.append(a.placement.Place(b), block|uint32(c)<<31)
		if err != nil {
			return to, fmt.Errorf("write to device %s: %w", d.name, err)
		}
		a.maps[c][block] = uint64(dev)<<32 | uint64(place)
		if oldDev != nil {
			oldDev.dead(uint32(old))
		}
		a.userWrites++
		to[c], not = dev, dev
	}
	a.written[block] = uint32(a.lsn)
	return to, nil
}

// Amplification is the blocks appended over the blocks that users wrote, since the last reset.
func (a *Array) Amplification() float64 {
	return float64(a.userWrites+a.gcWrites) / float64(max(1, a.userWrites))
}

func (a *Array) resetCounters() { a.userWrites, a.gcWrites = 0, 0 }
