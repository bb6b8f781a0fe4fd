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
	Copies  bool          // also volumes with two copies
	Limit   time.Duration // a run that does nothing to its devices for so long is stuck; 0 for 30 s
}

// Focus has something happen more often than it does by default.
type Focus int

// What can be had more often.
const (
	Everything  Focus = iota
	Faults            // devices that fail
	Damage            // flipped bits
	Collections       // collections, each with a checkpoint
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

	admin sync.Mutex // one administrative change at a time
	// The model. mu guards the slices; what they point to is guarded as
	// package model says, and frozen while states are checked.
	mu        sync.Mutex
	volumes   []*volume
	catalogs  []*catalog
	flushes   []*op // that succeeded, and administrative changes
	writes    []*op // that succeeded
	violation error
	noAdmin   bool // an administrative change failed: no more of them in this life
	lastTag   atomic.Uint64
	names     int

	background                sync.WaitGroup // checkpoints that a read holds up
	checkpointing, collecting atomic.Int32
	didMaintenance            atomic.Bool
	faulted                   atomic.Bool // since the array was opened
	hostFull                  bool
	inService                 int // devices, when the life began
	life                      int
	failed                    *fault // of this life
	openOps                   int64  // how many operations the last recovery took

	segment     int64
	options     lsa.Options
	spaceWanted chan struct{}
}

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
	for last := int64(-1); ; {
		select {
		case err := <-done:
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return nil
			}
			return err
		case <-time.After(limit):
		}
		now := r.progress.Load()
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
	return &Violation{r.cfg.Seed, fmt.Sprintf("life %d (host full %v, in service %d of %d): %s", r.life, r.hostFull, r.inService, len(r.site.mems), where), err}
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
	segments := max(12, total/r.segment/int64(devices))
	var mems []*blockdev.Mem
	for i := range devices {
		mems = append(mems, blockdev.NewMem(fmt.Sprint("dev", i), format.SegmentsOffset+segments*r.segment))
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
		Logger:          r.cfg.Logger,
	}
	if segments >= separateFrom && r.rng.IntN(2) == 0 {
		r.options.Placement, r.options.SeparateFrom = placement{}, separateFrom
	}
	if r.a, err = r.open(ctx, r.site); err != nil {
		return err
	}
	r.catalogs = []*catalog{{volumes: map[string]volumeState{}}}
	for range 1 + r.rng.IntN(3) {
		if err := r.createVolume(ctx, r.rng); err != nil {
			return err
		}
	}
	return nil
}

func (r *Run) open(ctx context.Context, s *site) (*lsa.Array, error) {
	o := r.options
	o.Devices, o.FS, o.Meta, o.BootID, o.Events = s.devices(), s.store(), "meta", s.boot, (*events)(r)
	s.rng.Shuffle(len(o.Devices), func(i, j int) { o.Devices[i], o.Devices[j] = o.Devices[j], o.Devices[i] })
	return lsa.Open(ctx, o)
}

// events tells the collector that a writer waits for room.
type events Run

func (e *events) SegmentUsed(slot, unused int) {}
func (e *events) SpaceWanted() {
	select {
	case e.spaceWanted <- struct{}{}:
	default:
	}
}

// live lets the workload run on the open array, checks what crashes in the
// midst of it leave, and leaves the run with what one of them left.
func (r *Run) live(ctx context.Context) error {
	steps := 20 + r.rng.IntN(150)
	moments := 2 + r.rng.IntN(10)
	r.site.planCrashes(moments, int64(steps*2), 3)
	r.site.jitter = true
	r.planFault(int64(steps * 2))
	r.workload(ctx, steps)
	if r.violation != nil {
		return r.violated("workload", r.violation)
	}
	r.site.clearPlan()
	now := &instant{when: r.clock.Add(1), what: "nothing"}
	if _, err := r.check(r.a, now); err != nil {
		return r.violated("reading while alive", err)
	}
	instants := r.site.take()
	if len(instants) == 0 {
		instants = append(instants, r.site.copy("nothing", r.rng.IntN(2) == 0))
	}
	closeErr := r.a.Close()
	if err := r.closed(closeErr); err != nil {
		return err
	}
	if err := r.checkDamaged(ctx, instants); err != nil {
		return err
	}
	if closeErr == nil && r.rng.IntN(6) == 0 {
		if err := r.checkAll(ctx, instants, false); err != nil {
			return err
		}
		return r.restart(ctx)
	}
	next, last := r.rng.IntN(len(instants)), len(instants)-1 // the one to go on with is opened last
	instants[next], instants[last] = instants[last], instants[next]
	return r.checkAll(ctx, instants, true)
}

// restart goes on with an array that was closed in order.
func (r *Run) restart(ctx context.Context) error {
	for _, m := range r.site.mems {
		m.OnOp = nil
	}
	s := r.newSite(blockdev.KillAll(r.rng, r.site.mems), r.site.fs, r.site.boot, 1)
	a, err := r.open(ctx, s)
	if err != nil {
		return r.violated("opening after closing in order", err)
	}
	seen, err := r.check(a, &instant{when: r.clock.Add(1), what: "nothing"})
	if err != nil {
		return r.violated("after closing in order", err)
	}
	r.goOn(s, a, seen)
	return nil
}

// checkAll opens and checks each state. With goOn the last one is where the
// next life begins.
func (r *Run) checkAll(ctx context.Context, instants []*instant, goOn bool) error {
	for n, i := range instants {
		if ctx.Err() != nil {
			return nil
		}
		last := goOn && n == len(instants)-1
		if err := r.checkState(ctx, i, last); err != nil && ctx.Err() == nil {
			return r.violated(i.String(), err)
		}
	}
	return nil
}

func (i *instant) String() string {
	kind := "kill -9"
	if i.power {
		kind = "power loss"
	}
	if i.damaged {
		kind += " and damage"
	}
	return fmt.Sprintf("%s, depth %d, at %d, during %s (checkpoint %v, collection %v, faulted %v)", kind, i.depth, i.when, i.what, i.checkpointing, i.collecting, i.faulted)
}

// checkDamaged checks a state whose medium was damaged as well: the array may
// refuse to open, and reads may fail; what it returns must be right.
func (r *Run) checkDamaged(ctx context.Context, instants []*instant) error {
	if r.rng.IntN(2) == 0 && r.cfg.Focus != Damage {
		return nil
	}
	from := instants[r.rng.IntN(len(instants))]
	i := *from
	i.damaged, i.power, i.mems = true, true, nil
	for _, m := range from.mems {
		i.mems = append(i.mems, m.KillClone(r.rng))
	}
	i.fs = from.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: r.rng})
	for range 1 + r.rng.IntN(mostDamage) {
		r.damage(i.mems[r.rng.IntN(len(i.mems))])
	}
	s := r.newSite(i.mems, i.fs, i.boot, 2)
	a, err := r.open(ctx, s)
	if err != nil {
		if errors.Is(err, lsa.ErrGap) || errors.Is(err, lsa.ErrDamaged) {
			r.stats.add(&i)
			return nil
		}
		return r.violated(i.String(), fmt.Errorf("open: %w", err))
	}
	if _, err := r.check(a, &i); err != nil {
		return r.violated(i.String(), err)
	}
	r.stats.add(&i)
	_ = a.Close()
	return nil
}

// mostDamage is how many records are damaged at most.
const mostDamage = 4

// damage flips bits where something was written, mostly in a header.
func (r *Run) damage(m *blockdev.Mem) {
	var sector [512]byte
	for range 50 {
		at := format.SegmentsOffset + r.rng.Int64N((m.Size()-format.SegmentsOffset)/512)*512
		if m.ReadAt(sector[:], at) != nil || sector == [512]byte{} {
			continue
		}
		if _, header := format.PeekRecordHeader(sector[:]); header || r.rng.IntN(4) == 0 {
			mask := make([]byte, 1+r.rng.IntN(20))
			for i := range mask {
				mask[i] = byte(1 + r.rng.IntN(255))
			}
			m.Corrupt(at+r.rng.Int64N(512-20), mask)
			return
		}
	}
}

// checkState opens a state, perhaps crashing again meanwhile, and checks it.
func (r *Run) checkState(ctx context.Context, i *instant, goOn bool) error {
	s := r.newSite(i.mems, i.fs, i.boot, i.depth+1)
	s.base = i
	if i.depth < 3 && r.rng.IntN(3) == 0 {
		s.planCrashes(1+r.rng.IntN(2), max(r.openOps, 40), 2)
	}
	a, err := r.open(ctx, s)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	r.openOps = s.count.Load()
	again := s.take()
	s.clearPlan()
	seen, err := r.check(a, i)
	if err != nil {
		return err
	}
	r.stats.add(i)
	if i.depth < 3 && r.rng.IntN(5) == 0 {
		if err := r.checkSettled(ctx, s, seen); err != nil {
			return err
		}
	}
	for _, sub := range again {
		if err := r.checkState(ctx, sub, false); err != nil {
			return fmt.Errorf("%v: %w", sub, err)
		}
	}
	if !goOn {
		return a.Close()
	}
	s.base, s.depth = nil, 1
	r.goOn(s, a, seen)
	return nil
}

// checkSettled: what an array holds when it has recovered is durable, whatever
// it was before.
func (r *Run) checkSettled(ctx context.Context, at *site, seen *observation) error {
	i := at.copy("nothing, recovery being over", true)
	i.power = at.base.power
	s := r.newSite(i.mems, i.fs, i.boot, i.depth+1)
	s.base = i
	a, err := r.open(ctx, s)
	if err != nil {
		return fmt.Errorf("loss of power just after recovery: open: %w", err)
	}
	now, err := r.check(a, i)
	if err == nil {
		err = seen.same(now)
	}
	if err != nil {
		return fmt.Errorf("loss of power just after recovery: %w", err)
	}
	r.stats.add(i)
	return a.Close()
}

// goOn makes what was seen the model of the next life.
func (r *Run) goOn(s *site, a *lsa.Array, seen *observation) {
	c := &catalog{volumes: map[string]volumeState{}}
	r.volumes = nil
	fresh := map[*volume]*volume{}
	for name, state := range seen.catalog.volumes {
		v := newVolume(name, state.blocks)
		for i, t := range seen.tags[state.vol] {
			v.cells[i] = []version{{tag: t}}
		}
		fresh[state.vol] = v
		r.volumes = append(r.volumes, v)
	}
	sortVolumes(r.volumes)
	for name, state := range seen.catalog.volumes {
		n := volumeState{vol: fresh[state.vol], blocks: state.blocks, origin: state.origin}
		for _, old := range state.snaps {
			n.snaps = append(n.snaps, &snapshot{name: old.name, vol: n.vol, blocks: old.blocks, pinned: seen.snaps[old]})
		}
		c.volumes[name] = n
	}
	for _, v := range r.volumes {
		h, err := a.OpenVolume(v.name, lsa.OpenOptions{Client: "workload"})
		if err != nil {
			panic(err) // the oracle has just read it
		}
		v.h = h
	}
	r.site, r.a = s, a
	r.catalogs, r.flushes, r.writes, r.noAdmin = []*catalog{c}, nil, nil, false
	r.didMaintenance.Store(false)
	r.faulted.Store(false)
	if r.hostFull {
		r.hostFull = false
		for _, m := range s.mems {
			m.SetSpace(1 << 50)
		}
	}
}

// planFault has a device fail, or the room below the devices end, in some lives.
func (r *Run) planFault(span int64) {
	inService := []int{}
	for _, d := range r.a.Devices() {
		if d.State == "in service" {
			inService = append(inService, d.Slot)
		}
	}
	r.failed, r.inService = nil, len(inService)
	roll := r.rng.IntN(100)
	if r.cfg.Focus == Faults {
		roll /= 4
	}
	switch {
	case roll < 20 && len(inService) > 1:
		f := &fault{slot: inService[r.rng.IntN(len(inService))], kind: blockdev.OpSync, times: 1 + r.rng.IntN(3), err: errInjected, after: r.site.count.Load() + r.rng.Int64N(span)}
		switch r.rng.IntN(6) {
		case 0, 1:
			f.kind, f.lands = blockdev.OpWrite, r.rng.IntN(2) == 0
		case 2, 3: // so often that a record finds no place at all, and is voided
			f.kind, f.err, f.slot, f.lands = blockdev.OpWrite, blockdev.ErrNoSpace, -1, r.rng.IntN(2) == 0
			f.times = 1 + r.rng.IntN(len(inService)+2)
		}
		r.failed = f
		r.site.mu.Lock()
		r.site.fault = f
		r.site.mu.Unlock()
	case roll < 26:
		r.hostFull = true
		for _, m := range r.site.mems {
			m.SetSpace(m.Used() + r.rng.Int64N(6)*r.segment)
		}
	}
}

var errInjected = errors.New("injected: input/output error")
