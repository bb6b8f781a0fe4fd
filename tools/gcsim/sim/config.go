package sim

import (
	"fmt"
	"time"

	"lsad/gc"
)

// Mechanisms are the ways to decide who collects when.
const (
	Timers       = "timers"       // lsad's: early collection by staggered timers
	DefaultOnly  = "default-only" // each device at its default threshold
	Synchronised = "all-at-once"  // the same timers without the stagger
	Oracle       = "oracle"       // one token for the whole array, which no real array has for free
)

// Mechanisms lists them all.
var Mechanisms = []string{Timers, DefaultOnly, Synchronised, Oracle}

// Service is how long a device is occupied by what it does, and what a request waits besides. A device serves
// one thing after the other.
type Service struct {
	Read      time.Duration // per block read by a user
	Write     time.Duration // per block written by a user
	ReadBase  time.Duration // added to every read, occupies nothing
	WriteBase time.Duration
	Move      time.Duration // per block that collection relocates: read, verify, append
	Chunk     time.Duration // per chunk of collection
	// ChunkBlocks are relocated in one go; a user's request waits for the rest of the chunk.
	ChunkBlocks int
	// Checkpoint is how long an emptied segment stays pending.
	Checkpoint time.Duration
}

// DefaultService is about that of an NVMe device behind records of many blocks.
var DefaultService = Service{
	Read: 4 * time.Microsecond, Write: 2 * time.Microsecond, ReadBase: 80 * time.Microsecond, WriteBase: 20 * time.Microsecond,
	Move: 8 * time.Microsecond, Chunk: 10 * time.Microsecond, ChunkBlocks: 32, Checkpoint: time.Millisecond,
}

// Config is one simulation.
type Config struct {
	Spec      Spec
	Mechanism string
	Service   Service
	Speeds    []float64 // per device, 1 if empty: 0.5 takes twice as long for everything
	Trace     TraceSpec
	File      Trace   // instead of a generated trace
	Rate      float64 // requests per second; of a file with times: 0 keeps its own
	// Warm and Requests count requests: Warm go before the Requests that are measured. A quarter of the warm
	// ones are timed, so that periods and queues settle; the rest only ages the array.
	Warm, Requests int
	// Timeline is how many seconds of collections at the end to keep.
	Timeline float64
}

// configure sets the collector up for a mechanism.
func (c *Config) configure() error {
	n := max(len(c.Spec.Sizes), c.Spec.Devices)
	g := &c.Spec.GC
	switch c.Mechanism {
	case Timers:
		g.Mode = gc.Timed
	case DefaultOnly:
		g.Mode = gc.DefaultOnly
	case Synchronised:
		g.Mode = gc.Timed
		g.Devices = map[string]gc.DeviceConfig{}
		for i := range n {
			g.Devices[deviceName(i)] = gc.DeviceConfig{Phase: new(float64)}
		}
	case Oracle:
		g.Mode = gc.DefaultOnly
		g.Devices = map[string]gc.DeviceConfig{}
		for i := range n {
			size := c.Spec.Segments
			if c.Spec.Sizes != nil {
				size = c.Spec.Sizes[i]
			}
			l, err := g.Thresholds.Resolve(size)
			if err != nil {
				return err
			}
			// Forced where the others would be early: who may start is the token's business.
			g.Devices[deviceName(i)] = gc.DeviceConfig{Thresholds: gc.Thresholds{Low: gc.Count(l.AltLow), High: gc.Count(l.AltHigh)}}
		}
	default:
		return fmt.Errorf("mechanism %q, want one of %v", c.Mechanism, Mechanisms)
	}
	return nil
}
