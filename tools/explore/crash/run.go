package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa"
	"lsad/lsa/format"
)

// Config of an exploration.
type Config struct {
	Seed    uint64
	Writers int          // goroutines of the workload; 0 draws 1 to 4
	Lives   int          // of a run; 0 draws
	Logger  *slog.Logger // of the arrays; nil discards
	Focus   Focus
	Copies  bool // also volumes with two copies
	// AnyDeaths: devices die also under arrays with volumes of one copy.
	AnyDeaths bool
	Devices   bool          // devices that die, are lost, come back, come and go; damage to one of them; scrubs and rebuilds
	Restless  bool          // in most lives there is always a checkpoint or a collection under way
	Keep      string        // directory to write the state into on which a violation was seen; empty: none
	Limit     time.Duration // a run that does nothing to its devices for so long is stuck; 0 for 30 s
}

// Focus has something happen more often than it does by default.
type Focus int

// What can be had more often.
const (
	Everything  Focus = iota
	Faults            // devices that fail
	Damage            // flipped bits
	Collections       // collections, each with a checkpoint
	Losses            // devices that are lost, that come and go; volumes with one copy and with two
)

// Violation is a broken promise, with what it takes to see it again.
type Violation struct {
	Seed  uint64
	Where string
	Err   error
}

func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d: %s: %v", v.Seed, v.Where, v.Err)
}

func (v *Violation) Unwrap() error { return v.Err }

// Run is one chain of lives.
type Run struct {
	cfg   Config
	rng   *rand.Rand
	stats *Stats
	site  *site
	a     *lsa.Array

	clock    atomic.Int64
	progress atomic.Int64 // operations of devices
	changes  atomic.Int64 // of data, that have ended

	admin sync.Mutex // one administrative change at a time
	// The model. mu guards the slices; what they point to is guarded as
	// package model says, and frozen while states are checked.
	mu          sync.Mutex
	volumes     []*volume
	catalogs    []*catalog
	flushes     []*op // that succeeded, and administrative changes
	writes      []*op // that succeeded
	checkpoints []*op // that succeeded
	violation   error
	noAdmin     bool // an administrative change failed: no more of them in this life
	lastTag     atomic.Uint64
	names       int

	background                sync.WaitGroup // checkpoints that a read holds up
	checkpointing, collecting atomic.Int32
	faulted                   atomic.Bool // since the array was opened
	troubled                  atomic.Bool // ever in this run: blocks with one copy may be lost
	hostFull                  bool
	inService                 []int // slots, when the life began
	life                      int
	failed                    *fault // of this life
	openOps                   int64  // how many operations the last recovery took

	membership sync.Mutex   // one deviceStep at a time
	trouble    sync.Mutex   // guards troubles, and changes of spare other than to noneToSpare
	troubles   int          // times that a device was damaged
	spare      atomic.Int32 // see anyToSpare
	foreign    bool         // in this life something fails that may leave blocks with one copy
	members    int          // slots that there were when the life began
	copiesOnly int          // copies of every volume; 0: they differ
	stale      []leftBehind
	former     []*blockdev.Mem // by slot: as they were before the life before this
	recent     []*blockdev.Mem // by slot: as they were before this life

	kept logKeeper // what was logged in this life, if a state is to be kept and nobody else wants the log
	told bool      // one was

	segment     int64
	deviceSize  int64
	options     lsa.Options
	spaceWanted chan struct{}
}

// enoughLimit is the Limit of a run whose search has found what it was to find: where a rule is broken, another run may
// be stuck, and nobody wants to know.
const enoughLimit = 5 * time.Second

// Explore does one run of the seed and adds to stats. It returns a *Violation
// if a promise was broken.
func Explore(ctx context.Context, cfg Config, stats *Stats) error {
	r := &Run{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), stats: stats, spaceWanted: make(chan struct{}, 1)}
	limit := cfg.Limit
	if limit == 0 {
		limit = 30 * time.Second
	}
	done := make(chan error, 1)
	go func() {
		defer r.catch()
		done <- r.run(ctx)
	}()
	ended := ctx.Done()
	for last := int64(-1); ; {
		select {
		case <-ended:
			ended = nil
			if errors.Is(context.Cause(ctx), errEnough) {
				limit = min(limit, enoughLimit)
			}
			continue
		case err := <-done:
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return nil
			}
			return err
		case <-time.After(limit):
		}
		now := r.progress.Load()
		if now == last && errors.Is(context.Cause(ctx), errEnough) {
			return nil // stuck as well, over what was found
		}
		if now == last {
			buf := make([]byte, 1<<20)
			status, _ := json.Marshal(r.a.Status())
			return r.violated("watchdog", fmt.Errorf("stuck for %v, host full %v, faulted %v, %s:\n%s", limit, r.hostFull, r.faulted.Load(), status, buf[:runtime.Stack(buf, true)]))
		}
		last = now
	}
}

// catch says which run a panic belongs to, and lets it go on.
func (r *Run) catch() {
	if p := recover(); p != nil {
		fmt.Fprintf(os.Stderr, "seed %d, life %d: panic\n", r.cfg.Seed, r.life)
		panic(p)
	}
}

func (r *Run) violated(where string, err error) error {
	var v *Violation
	if errors.As(err, &v) {
		return err
	}
	return &Violation{r.cfg.Seed, fmt.Sprintf("life %d (host full %v, in service %v of %d): %s", r.life, r.hostFull, r.inService, len(r.site.mems), where), err}
}

func (r *Run) run(ctx context.Context) error {
	if err := r.create(ctx); err != nil {
		return r.violated("create", err)
	}
	lives := r.cfg.Lives
	if lives == 0 {
		lives = 2 + r.rng.IntN(5)
	}
	for ; r.life < lives && ctx.Err() == nil; r.life++ {
		if err := r.live(ctx); err != nil {
			return err
		}
	}
	r.site.clearPlan()
	r.site.take()
	return r.closed(r.a.Close())
}

// closed: a device that failed may keep an array from closing in order.
func (r *Run) closed(err error) error {
	if err != nil && !r.faulted.Load() {
		return r.violated("close", err)
	}
	return nil
}

// create makes an array and its first volumes.
func (r *Run) create(ctx context.Context) error {
	devices := 2 + r.rng.IntN(3)
	r.segment = []int64{128 << 10, 128 << 10, 256 << 10}[r.rng.IntN(3)]
	total := []int64{2 << 20, 4 << 20, 8 << 20, 16 << 20}[r.rng.IntN(4)]
	if r.drawFlavour(); r.cfg.Devices { // room to do without one
		total = max(4*total, 32<<20)
	}
	segments := max(12, total/r.segment/int64(devices))
	r.deviceSize = format.SegmentsOffset + segments*r.segment
	var mems []*blockdev.Mem
	for i := range devices {
		more := int64(0)
		if r.rng.IntN(3) == 0 { // devices need not be of one size
			more = r.segment * r.rng.Int64N(segments)
		}
		mems = append(mems, blockdev.NewMem(fmt.Sprint("dev", i), r.deviceSize+more))
	}
	fs := vfs.NewCrashableMem()
	r.site = r.newSite(mems, fs, randomUUID(r.rng), 1)
	err := lsa.Create(ctx, lsa.CreateOptions{Devices: r.site.devices(), FS: r.site.store(), Meta: "meta", SegmentSize: r.segment})
	if err != nil {
		return err
	}
	r.options = lsa.Options{
		CheckpointEvery: -1,
		CheckpointBytes: []int64{256 << 10, 512 << 10, 4 << 20}[r.rng.IntN(3)],
		MapCache:        []int64{256 << 10, 1 << 20}[r.rng.IntN(2)],
		DeltasFrom:      1 + r.rng.IntN(20), // pages are small here
		ViewsFrom:       1 + r.rng.IntN(2),  // and chains of layers short
		Logger:          r.cfg.Logger,
	}
	if r.cfg.Keep != "" && r.cfg.Logger == nil {
		r.options.Logger = slog.New(slog.NewTextHandler(&r.kept, nil))
	}
	if segments >= separateFrom && r.rng.IntN(2) == 0 {
		r.options.Placement, r.options.SeparateFrom = placement{}, separateFrom
	}
	if r.a, err = r.open(ctx, r.site, false); err != nil {
		return err
	}
	r.catalogs = []*catalog{{volumes: map[string]volumeState{}}}
	r.members = devices
	r.spare.Store(anyToSpare)
	for range 1 + r.rng.IntN(3) {
		if err := r.createVolume(ctx, r.rng); err != nil {
			return err
		}
	}
	return nil
}

func (r *Run) open(ctx context.Context, s *site, degraded bool) (*lsa.Array, error) {
	o := r.options
	o.Degraded = degraded
	o.Devices, o.FS, o.Meta, o.BootID, o.Events = s.devices(), s.store(), "meta", s.boot, (*events)(r)
	s.rng.Shuffle(len(o.Devices), func(i, j int) { o.Devices[i], o.Devices[j] = o.Devices[j], o.Devices[i] })
	return lsa.Open(ctx, o)
}
