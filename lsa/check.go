package lsa

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// Problem is one thing that Check found wrong.
type Problem struct {
	Kind  string `json:"kind"`  // superblock, array, log, map, layer, segment, record or data; the program adds metadata
	Where string `json:"where"` // the object
	What  string `json:"what"`  // is wrong with it
	place format.Place
}

func (p Problem) String() string { return p.Kind + ": " + p.Where + ": " + p.What }

// CheckReport is what Check found. Nothing is wrong if Problems is empty.
type CheckReport struct {
	Problems []Problem     `json:"problems"`
	More     int           `json:"more"`     // problems beyond those listed
	Blocks   int64         `json:"blocks"`   // whose data was read and verified
	Bytes    int64         `json:"bytes"`    // of those blocks
	Segments int           `json:"segments"` // that hold them
	Volumes  int           `json:"volumes"`
	Took     time.Duration `json:"took_ns"`
}

// maxProblems are listed; the rest is counted.
const maxProblems = 1000

// claimLimit bounds the memory of a check: so many blocks are looked after at a
// time, 32 bytes each.
const claimLimit = 8 << 20

// checker is one run of Check.
type checker struct {
	a        *Array
	partial  bool // the log could not be replayed: counts and lengths need not fit
	limit    int  // blocks in one pass
	names    map[uint64]string
	counts   map[segmentUse]int // blocks that the map has in each segment
	total    int64              // bytes to verify
	progress func(done, total int64)

	mu     sync.Mutex
	report CheckReport
}

// Check verifies an array that nobody has open: both copies of the
// superblocks, the metadata store, the map, the log and the data of every
// mapped block. It writes nothing. What a crash leaves and Open would recover
// is not damage. progress, if not nil, is told the bytes of data verified and
// their total; it is called from one goroutine at a time.
//
// The error says that the check could not be made, because a device is
// missing, say. What the check found is in the report.
func Check(ctx context.Context, o Options, progress func(done, total int64)) (*CheckReport, error) {
	return check(ctx, o, progress, claimLimit)
}

func check(ctx context.Context, o Options, progress func(done, total int64), limit int) (_ *CheckReport, err error) {
	begin := time.Now()
	o.fill()
	if _, err := o.FS.List(o.Meta); err != nil {
		return nil, fmt.Errorf("check array: metadata store %s: %w", o.Meta, err)
	}
	c := &checker{limit: limit, progress: progress, counts: map[segmentUse]int{}}
	c.superblocks(o.Devices)
	a, err := inspect(ctx, o)
	defer func() {
		if closeErr := a.dismiss(); closeErr != nil && err == nil {
			err = fmt.Errorf("check array: %w", closeErr)
		}
	}()
	if err != nil {
		if cannotCheck(err) {
			return nil, fmt.Errorf("check array: %w", err)
		}
		c.add("array", "opening it", "%v", err)
	}
	if c.a = a; len(a.recovery.Steps) >= 2 { // the metadata store was read
		c.partial = err != nil
		if err := c.contents(ctx); err != nil {
			return nil, fmt.Errorf("check array: %w", err)
		}
	}
	c.sort()
	c.report.Took = time.Since(begin)
	return &c.report, nil
}

// cannotCheck tells a wrong call from a damaged array.
func cannotCheck(err error) bool {
	for _, e := range []error{
		ErrNotArray, ErrForeignDevice, ErrMissingDevice, ErrStaleDevice,
		context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (c *checker) contents(ctx context.Context) error {
	c.report.Volumes = len(c.a.catalog.volumes)
	c.nameLayers()
	for _, gap := range c.a.recovery.Gaps {
		c.add("log", "behind the checkpoint", "%s", gap)
	}
	if err := c.countMap(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		c.add("map", "metadata store", "%v", err)
		return nil
	}
	c.compareCounts()
	err := c.a.blocks.CheckViews(func(k blockmap.Key, err error) error {
		c.add("map", "kept view of "+pageName(k), "%v", err)
		return ctx.Err()
	})
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		c.add("map", "metadata store", "%v", err)
	}
	return c.verifyData(ctx)
}

func (c *checker) add(kind, where, what string, args ...any) {
	c.addProblem(Problem{Kind: kind, Where: where, What: fmt.Sprintf(what, args...)})
}

// addAt adds a problem of a place on a device.
func (c *checker) addAt(kind string, p format.Place, what string, args ...any) {
	c.addProblem(Problem{kind, c.placeName(p), fmt.Sprintf(what, args...), p})
}

// placeName names a device as its user does, where it is there.
func (c *checker) placeName(p format.Place) string {
	all := c.a.devs()
	if slot := int(p.Device()); p != 0 && slot < len(all) && all[slot] != nil {
		return fmt.Sprintf("%s sector %d", segmentName(all[slot], p.Segment()), p.Sector())
	}
	return p.String()
}

func (c *checker) addProblem(p Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.report.Problems) == maxProblems {
		c.report.More++
		return
	}
	c.report.Problems = append(c.report.Problems, p)
}

// sort makes the report the same each time: the data is verified in parallel.
func (c *checker) sort() {
	sort.SliceStable(c.report.Problems, func(i, j int) bool {
		return c.report.Problems[i].place < c.report.Problems[j].place
	})
}

// verified counts blocks whose data was looked at.
func (c *checker) verified(blocks int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Blocks += int64(blocks)
	c.report.Bytes += int64(blocks) * format.BlockSize
	if c.progress != nil {
		c.progress(c.report.Bytes, c.total)
	}
}

// nameLayers finds names for the layers that have one.
func (c *checker) nameLayers() {
	c.names = map[uint64]string{}
	for _, v := range c.a.catalog.volumes {
		c.names[v.Head] = v.Name
		for _, s := range v.Snapshots {
			c.names[s.Layer] = v.Name + "@" + s.Name
		}
	}
}

// block names a block by what a user knows it by, if there is that.
func (c *checker) block(layer, block uint64) string {
	if name := c.names[layer]; name != "" {
		return fmt.Sprintf("volume %s at byte %d", name, block*format.BlockSize)
	}
	return fmt.Sprintf("layer %d block %d", layer, block)
}
