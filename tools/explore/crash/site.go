package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// fault makes operations of a device fail.
type fault struct {
	slot  int // -1: of any
	kind  blockdev.OpKind
	after int64 // changes of the array's devices
	times int
	err   error
	lands bool // a write takes effect, and fails nevertheless
	hits  int
	first int64 // when it was hit first
}

// flaky is a device of a site: its writes may land and fail.
type flaky struct {
	*blockdev.Mem
	s    *site
	slot int
}

// WriteVec implements blockdev.Device.
func (d flaky) WriteVec(bufs [][]byte, off int64) error {
	var n int64
	for _, b := range bufs {
		n += int64(len(b))
	}
	return d.s.trail.around(trailStep{slot: d.slot, kind: blockdev.OpWrite, off: off, n: n, lsn: firstLSN(bufs)}, func() error {
		if err := d.Mem.WriteVec(bufs, off); err != nil {
			return err
		}
		return d.s.failing(d.slot, d.s.count.Load(), blockdev.OpWrite, off, true)
	})
}

// Allocate implements blockdev.Device.
func (d flaky) Allocate(off, n int64) error {
	return d.s.trail.around(trailStep{slot: d.slot, kind: blockdev.OpAllocate, off: off, n: n}, func() error { return d.Mem.Allocate(off, n) })
}

// Discard implements blockdev.Device.
func (d flaky) Discard(off, n int64) error {
	return d.s.trail.around(trailStep{slot: d.slot, kind: blockdev.OpDiscard, off: off, n: n}, func() error { return d.Mem.Discard(off, n) })
}

// Sync implements blockdev.Device.
func (d flaky) Sync() error {
	return d.s.trail.around(trailStep{slot: d.slot, kind: blockdev.OpSync}, d.Mem.Sync)
}

// site is the place where an array runs: devices and a file system that watch
// each operation, yield crash states, and fail on demand.
type site struct {
	r    *Run
	mems []*blockdev.Mem // by slot; nil where no device is. Guarded by mu while the array is open
	fs   *vfs.MemFS
	boot format.UUID

	count  atomic.Int64 // of operations that change something
	mu     sync.Mutex
	rng    *rand.Rand
	plan   map[int64]int // count: how many copies to make there
	base   *instant      // where the site comes from; nil for a fresh array
	depth  int
	fault  *fault
	jitter bool
	taken  []*instant

	death    death
	joining  int // slot of a device that is being added and that nobody has to remember yet; -1: none
	adding   int // slot of one that is being added; -1: none
	removing int // slot of one that is being removed; -1: none
	removed  int // slot of one that turned out to have been removed; -1: none

	duringRead *holdUp
	trail      trail
}

func (r *Run) newSite(mems []*blockdev.Mem, fs *vfs.MemFS, boot format.UUID, depth int) *site {
	s := &site{r: r, mems: mems, fs: fs, boot: boot, depth: depth, rng: rand.New(rand.NewPCG(r.rng.Uint64(), 1)), plan: map[int64]int{}, joining: -1, adding: -1, removing: -1, removed: -1}
	s.trail.on = r.cfg.Keep != ""
	for i, m := range mems {
		s.watch(i, m)
	}
	return s
}

func (s *site) watch(slot int, m *blockdev.Mem) {
	if m != nil {
		m.OnOp = func(op blockdev.Op) error { return s.onDevice(slot, op) }
	}
}

// planCrashes draws so many moments out of the next span operations.
func (s *site) planCrashes(moments int, span int64, copies int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.count.Load()
	for range moments {
		s.plan[now+1+s.rng.Int64N(span)] = 1 + s.rng.IntN(copies)
	}
}

func (s *site) clearPlan() {
	s.mu.Lock()
	clear(s.plan)
	s.fault, s.jitter = nil, false
	s.mu.Unlock()
}

// copyNow is copy, of a site at rest or not.
func (s *site) copyNow(what string, power bool) *instant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copy(what, power)
}

func (s *site) take() []*instant {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.taken
	s.taken = nil
	return t
}

func (s *site) onDevice(slot int, op blockdev.Op) error {
	if op.Kind != blockdev.OpAllocate { // what fails for want of room is tried again and again
		s.r.progress.Add(1)
	}
	if err := s.death.strikes(s, slot); err != nil {
		s.count.Add(1)
		return err
	}
	if op.Kind == blockdev.OpTryRead && s.cold() {
		return blockdev.ErrWouldBlock
	}
	if op.Kind == blockdev.OpRead || op.Kind == blockdev.OpTryRead {
		s.dawdle()
		s.heldUp(slot, op.Off)
		return nil
	}
	n := s.count.Add(1)
	s.crashPoint(n, slot, op)
	s.dawdle()
	return s.failing(slot, n, op.Kind, op.Off, false)
}

// store watches the metadata store's files.
func (s *site) store() vfs.FS {
	return errorfs.Wrap(s.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		s.crashPoint(s.count.Add(1), -1, blockdev.Op{})
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			s.trail.add(trailStep{what: "sync " + op.Path})
			return s.syncDirectory(op.Path)
		}
		return nil
	}))
}

// syncDirectory makes the names in a file's directory durable. A journalling
// file system does so whenever a file that is new is synced, and Pebble counts
// on that: it syncs a manifest and names it in a marker before it syncs the
// directory of both. MemFS alone could keep the marker and lose the manifest.
func (s *site) syncDirectory(path string) error {
	d, err := s.fs.OpenDir(s.fs.PathDir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// failing is the error of an operation that is to fail. What fails wherever it goes fails for want of room, which the
// superblocks have had since the array was made: were they to fail on every device, none would be left.
func (s *site) failing(slot int, n int64, kind blockdev.OpKind, off int64, landed bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fault
	if f == nil || f.slot >= 0 && f.slot != slot || f.slot < 0 && off < format.SegmentsOffset || f.kind != kind || f.lands != landed || n < f.after || f.hits == f.times {
		return nil
	}
	if f.hits++; f.hits == 1 {
		f.first = s.r.clock.Add(1)
		s.plan[s.count.Load()+1+s.rng.Int64N(8)] = 3 // before the array has coped with it, or just then
		s.r.faulted.Store(true)
	}
	return f.err
}

// cold says of one read in two that a disk would have to be waited for.
func (s *site) cold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(2) == 0
}

// dawdle lets other goroutines in between now and then.
func (s *site) dawdle() {
	s.mu.Lock()
	roll := 100
	if s.jitter {
		roll = s.rng.IntN(100)
	}
	s.mu.Unlock()
	switch {
	case roll < 2:
		time.Sleep(20 * time.Microsecond)
	case roll < 25:
		runtime.Gosched()
	}
}

// holdUp is what is to happen, once, while a read is under way.
type holdUp struct {
	fn      func(slot int, off int64)
	running sync.WaitGroup
}

// heldUp has a read wait until it is done, but not for ever: the read may be that
// of another worker, who changes a part of a block and holds what fn waits for.
func (s *site) heldUp(slot int, off int64) {
	s.mu.Lock()
	h := s.duringRead
	s.duringRead = nil
	if h != nil {
		h.running.Add(1) // seen by who waits for it: setDuringRead comes first
	}
	s.mu.Unlock()
	if h == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer h.running.Done()
		defer close(done)
		h.fn(slot, off)
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
	}
}

func (s *site) setDuringRead(h *holdUp) {
	s.mu.Lock()
	s.duringRead = h
	s.mu.Unlock()
}

// crashPoint makes the copies that are planned for the n-th change.
func (s *site) crashPoint(n int64, slot int, op blockdev.Op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	copies := s.plan[n]
	if copies == 0 {
		return
	}
	delete(s.plan, n)
	what := "a change of the metadata store"
	if slot >= 0 {
		what = fmt.Sprintf("%v of device %d at %d+%d", op.Kind, slot, op.Off, op.Len)
	}
	for range copies {
		s.taken = append(s.taken, s.copy(what, s.rng.IntN(10) < 6))
	}
}

func randomUUID(rng *rand.Rand) (u format.UUID) {
	for i := range u {
		u[i] = byte(rng.Uint32())
	}
	return u
}

// devices are the site's devices in any order.
func (s *site) devices() []blockdev.Device {
	var all []blockdev.Device
	for i, m := range s.mems {
		if m != nil && i != s.removed {
			all = append(all, flaky{m, s, i})
		}
	}
	return all
}
