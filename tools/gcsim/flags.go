package main

import (
	"fmt"
	"math"
	"os"
	"time"

	"github.com/spf13/cobra"

	"lsad/tools/gcsim/sim"
)

// options are the flags that describe a simulation.
type options struct {
	cfg      sim.Config
	file     string
	limit    int
	duty     float64
	warm     float64
	requests float64
	slowness float64
	trace    *sim.FileTrace
}

func (o *options) register(c *cobra.Command) {
	f := c.Flags()
	s := &o.cfg.Spec
	f.IntVar(&s.Devices, "devices", 4, "number of devices")
	f.IntVar(&s.Segments, "segments", 1024, "segments per device")
	f.IntSliceVar(&s.Sizes, "sizes", nil, "segments of each device, where they differ, such as 1024,2048 (instead of --devices and --segments)")
	f.IntVar(&s.SegmentBlocks, "segment-blocks", 128, "blocks of 4 KiB per segment")
	f.Float64Var(&s.Utilisation, "utilisation", 0.8, "share of the array that holds live blocks, all copies counted")
	f.IntVar(&s.Copies, "copies", 1, "copies of each block, 1 or 2")
	f.Float64SliceVar(&o.cfg.Speeds, "speeds", nil, "speed of each device, 1 is normal, such as 1,1,0.5,1")
	f.StringVar(&s.GC.Policy, "policy", "", "victim policy (the server's default if empty)")
	f.StringVar(&s.GC.Placement, "placement", "", "placement (the server's default if empty)")
	f.Var(&s.GC.Period, "period", "period of the timers, or auto")
	f.Var(&s.GC.Thresholds.Low, "low", "default low threshold, segments or a share such as 1%")
	f.Var(&s.GC.Thresholds.High, "high", "default high threshold")
	f.Var(&s.GC.Thresholds.AltLow, "alt-low", "alternative low threshold")
	f.Var(&s.GC.Thresholds.AltHigh, "alt-high", "alternative high threshold")
	t := &o.cfg.Trace
	f.StringVar(&t.Kind, "trace", "uniform", fmt.Sprintf("generated trace, one of %v", sim.Kinds))
	f.Float64Var(&t.Exponent, "exponent", 1, "exponent of Zipf traces")
	f.Float64Var(&t.Hot, "hot", 0.1, "hotcold: share of the blocks that are hot")
	f.Float64Var(&t.Heat, "heat", 0.9, "hotcold: share of the requests that go to them")
	f.Float64Var(&t.Reads, "reads", 0.5, "share of requests that read")
	f.Uint64Var(&t.Seed, "seed", 1, "seed of everything random")
	f.StringVar(&o.file, "trace-file", "", "trace file instead, volume,opcode,offset,length,timestamp_us a line (Alibaba's format)")
	f.IntVar(&o.limit, "trace-limit", 5_000_000, "read at most so many lines of it")
	f.Float64Var(&o.cfg.Rate, "rate", 0, "requests per second (of a trace file: 0 keeps its times)")
	f.Float64Var(&o.duty, "duty", 0.6, "without --rate: choose the rate at which devices times duty cycle would be this, at full pace")
	f.Float64Var(&o.warm, "warm", 4, "warm-up, in writes per block of the array")
	f.Float64Var(&o.requests, "length", 1, "measured part, in writes per block of the array")
	o.cfg.Service = sim.DefaultService
	f.DurationVar(&o.cfg.Service.Read, "read-time", sim.DefaultService.Read, "how long a block read occupies a device")
	f.DurationVar(&o.cfg.Service.Write, "write-time", sim.DefaultService.Write, "how long a block written occupies a device")
	f.DurationVar(&o.cfg.Service.Move, "move-time", sim.DefaultService.Move, "how long a block relocated occupies a device")
	f.DurationVar(&o.cfg.Service.Checkpoint, "checkpoint-time", sim.DefaultService.Checkpoint, "how long an emptied segment waits for a checkpoint")
	f.IntVar(&o.cfg.Service.ChunkBlocks, "chunk-blocks", sim.DefaultService.ChunkBlocks, "blocks that collection relocates in one go")
	f.Float64Var(&o.slowness, "slowness", 1, "multiplies every service time: 1 is about an NVMe device, 5 a SATA SSD")
}

// prepare completes the configuration: the trace file, the length, the rate.
func (o *options) prepare() error {
	s := &o.cfg.Spec
	c := o.cfg.Service
	if c.ChunkBlocks < 1 || min(c.Read, c.Write, c.Move, c.Checkpoint) < 0 || !(o.slowness > 0) {
		return fmt.Errorf("service times %+v, slowness %v: want none below zero, and chunks of a block or more", c, o.slowness)
	}
	if len(s.Sizes) > 0 {
		s.Devices = len(s.Sizes)
	}
	if err := o.numbers(); err != nil {
		return err
	}
	if o.file != "" {
		return o.open()
	}
	total := s.Devices * s.Segments
	if len(s.Sizes) > 0 {
		total = 0
		for _, n := range s.Sizes {
			total += n
		}
	}
	if r := o.cfg.Trace.Reads; !(r >= 0 && r < 1) {
		return fmt.Errorf("--reads %v, want at least 0 and below 1", r)
	}
	blocks := s.Utilisation * float64(total*s.SegmentBlocks) / float64(max(1, s.Copies))
	per := blocks / (1 - o.cfg.Trace.Reads)
	o.cfg.Warm, o.cfg.Requests = int(o.warm*per), int(o.requests*per)
	if o.cfg.Rate == 0 {
		slowed := o.cfg
		slowed.Service = scaled(o.cfg.Service, o.slowness)
		rate, err := sim.RateFor(slowed, o.duty)
		if err != nil {
			return err
		}
		o.cfg.Rate = rate
	}
	return nil
}

// numbers refuses those that make no sense: not a number, above all, which is neither below nor above any bound.
func (o *options) numbers() error {
	positive := func(v float64) bool { return v > 0 && !math.IsInf(v, 1) }
	switch {
	case !positive(o.cfg.Spec.Utilisation), !positive(o.requests), !positive(o.slowness):
		return fmt.Errorf("--utilisation %v, --length %v, --slowness %v: want them above zero", o.cfg.Spec.Utilisation, o.requests, o.slowness)
	case o.cfg.Rate != 0 && !positive(o.cfg.Rate), o.cfg.Rate == 0 && !positive(o.duty):
		return fmt.Errorf("--rate %v, --duty %v: want a rate above zero, or a duty", o.cfg.Rate, o.duty)
	case o.warm != 0 && !positive(o.warm), o.limit < 0:
		return fmt.Errorf("--warm %v, --trace-limit %d: want none below zero", o.warm, o.limit)
	}
	for _, v := range o.cfg.Speeds {
		if !positive(v) {
			return fmt.Errorf("--speeds %v: want them above zero", o.cfg.Speeds)
		}
	}
	return nil
}

// leastFree is how many segments of a device must be without live blocks: as many as the default thresholds of a small
// device ask for, and some to move to. With fewer, collection never ends.
const leastFree = 12

func (o *options) open() error {
	f, err := os.Open(o.file)
	if err != nil {
		return fmt.Errorf("opening the trace: %w", err)
	}
	defer f.Close()
	if o.trace, err = sim.ReadTrace(f, o.limit); err != nil {
		return fmt.Errorf("trace %s: %w", o.file, err)
	}
	s := &o.cfg.Spec
	s.Blocks, s.Sizes = o.trace.Blocks(), nil
	s.Segments = int(float64(s.Blocks*s.Copies)/s.Utilisation/float64(s.Devices*s.SegmentBlocks)) + 1
	if free := int(float64(s.Segments) * (1 - s.Utilisation)); free < leastFree {
		return fmt.Errorf("trace %s touches %d blocks: %d devices of %d segments, of which %d are free, want %d: try a smaller --segment-blocks or --utilisation",
			o.file, s.Blocks, s.Devices, s.Segments, free, leastFree)
	}
	o.cfg.Requests = o.trace.Requests()
	return nil
}

// config is the configuration of one run.
func (o *options) config(mechanism string) sim.Config {
	c := o.cfg
	c.Mechanism = mechanism
	c.Service = scaled(c.Service, o.slowness)
	if o.trace != nil {
		c.File = o.trace.Again()
	}
	return c
}

func scaled(s sim.Service, by float64) sim.Service {
	for _, d := range []*time.Duration{&s.Read, &s.Write, &s.ReadBase, &s.WriteBase, &s.Move, &s.Chunk} {
		*d = time.Duration(float64(*d) * by)
	}
	return s
}
