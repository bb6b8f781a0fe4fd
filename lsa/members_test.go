package lsa

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// crew is an array whose devices come and go.
type crew struct {
	*rig
	rng     *rand.Rand
	data    []byte
	h       *Handle
	known   []bool // by device: the data directory remembers it
	knownMu sync.Mutex
}

// TestMembers adds and removes devices under writes, and loses power or the
// process at any moment: what was flushed is there, whichever devices are.
func TestMembers(t *testing.T) {
	for seed := range uint64(6 / underRace) {
		for _, copies := range []int{1, 2} {
			t.Run(fmt.Sprintf("seed %d, %d copies", seed, copies), func(t *testing.T) { runMembers(t, seed, copies) })
		}
	}
}

func runMembers(t *testing.T, seed uint64, copies int) {
	c := &crew{rig: newRig(t, 3, 48), rng: rand.New(rand.NewPCG(seed, 11)), known: []bool{true, true, true}}
	c.copies = copies
	c.h = c.volume("v", 3<<20)
	c.data = make([]byte, c.h.Size())
	for range 8 {
		c.scribble(8)
		if c.rng.IntN(3) == 0 {
			c.cutShort()
		} else {
			c.change()
		}
		c.expect("devices changed", c.handle("v"), c.data)
	}
	if _, err := c.a.Scrub(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
}

// scribble writes here and there, and flushes.
func (c *crew) scribble(writes int) {
	c.t.Helper()
	for range writes {
		off := c.rng.IntN(len(c.data)/format.BlockSize-32) * format.BlockSize
		part := c.data[off:][:(1+c.rng.IntN(32))*format.BlockSize]
		fill(part, c.rng)
		if err := write(c.h, int64(off), part); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := c.h.Flush(); err != nil {
		c.t.Fatal(err)
	}
}

// step adds a device or removes one, as the numbers of devices ask for.
func (c *crew) step(a *Array, rng *rand.Rand) error {
	var in []int
	for _, d := range a.Devices() {
		if d.State == "in service" {
			in = append(in, d.Slot)
		}
	}
	if len(in) < 3 || len(in) < 5 && rng.IntN(2) == 0 {
		m := blockdev.NewMem(fmt.Sprint("new", len(c.mems)), format.SegmentsOffset+48*rigSegment)
		c.knownMu.Lock()
		c.mems, c.known = append(c.mems, m), append(c.known, false)
		i := len(c.mems) - 1
		c.knownMu.Unlock()
		_, err := a.AddDevice(context.Background(), m, func() error { c.remember(i, true); return nil })
		return err
	}
	dev, err := a.RemoveDevice(context.Background(), in[rng.IntN(len(in))], RemoveOptions{})
	if err == nil {
		c.remember(slices.IndexFunc(c.mems, func(m *blockdev.Mem) bool { return m == dev }), false)
	}
	return err
}

func (c *crew) remember(i int, in bool) {
	c.knownMu.Lock()
	c.known[i] = in
	c.knownMu.Unlock()
}

// change makes one change, with writes meanwhile, and opens the array again.
func (c *crew) change() {
	c.t.Helper()
	done := make(chan error, 1)
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 1))
	go func() { done <- c.step(c.a, rng) }()
	for busy := true; busy; {
		c.scribble(2)
		select {
		case err := <-done:
			if err != nil {
				c.t.Fatal(err)
			}
			busy = false
		default:
		}
	}
	switch c.rng.IntN(3) {
	case 0:
		c.restart(c.a.Close)
	case 1:
		c.restart(func() error { return c.lose(blockdev.CrashAll, 50) })
	}
}

// cutShort loses power or the process in the middle of a change.
func (c *crew) cutShort() {
	c.t.Helper()
	done := make(chan error, 1)
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 1))
	go func() { done <- c.step(c.a, rng) }()
	time.Sleep(time.Duration(c.rng.IntN(4000)) * time.Microsecond)
	how, synced := blockdev.CrashAll, 50
	if c.rng.IntN(2) == 0 {
		how, synced = blockdev.KillAll, 100
	}
	old := c.a
	mems, fs, known := c.snapshot(how, synced)
	<-done // of the life that went on without us
	old.Close()
	c.mems, c.fs, c.known = mems, fs, known
	c.reopenKnown()
}

func (c *crew) snapshot(how func(*rand.Rand, []*blockdev.Mem, ...func()) []*blockdev.Mem, synced int) ([]*blockdev.Mem, *vfs.MemFS, []bool) {
	c.knownMu.Lock()
	all := slices.Clone(c.mems)
	c.knownMu.Unlock()
	var fs *vfs.MemFS
	var known []bool
	mems := how(c.rng, all, func() {
		fs = c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: synced, RNG: c.rng})
		c.knownMu.Lock()
		known = slices.Clone(c.known[:len(all)])
		c.knownMu.Unlock()
	})
	return mems, fs, known
}

func (c *crew) lose(how func(*rand.Rand, []*blockdev.Mem, ...func()) []*blockdev.Mem, synced int) error {
	old := c.a
	mems, fs, known := c.snapshot(how, synced)
	old.Close()
	c.mems, c.fs, c.known = mems, fs, known
	return nil
}

func (c *crew) restart(end func() error) {
	c.t.Helper()
	if err := end(); err != nil {
		c.t.Fatal(err)
	}
	c.reopenKnown()
}

// reopenKnown opens the array with the devices that are remembered. One that
// was removed just before it would have been forgotten is named as stale, or is
// blank already.
func (c *crew) reopenKnown() {
	c.t.Helper()
	for {
		c.opts.Devices = nil
		var err error
		o := c.opts
		o.FS, o.Meta = c.fs, "meta"
		for i, m := range c.mems {
			if c.known[i] {
				o.Devices = append(o.Devices, m)
			}
		}
		if c.a, err = Open(context.Background(), o); err == nil {
			break
		}
		if !errors.Is(err, ErrStaleDevice) && !errors.Is(err, ErrNotArray) && !errors.Is(err, ErrDamaged) {
			c.t.Fatal(err)
		}
		if !c.forgetOne() {
			c.t.Fatal(err)
		}
	}
	c.h = c.handle("v")
}

// forgetOne forgets a device that the newest superblock calls gone.
func (c *crew) forgetOne() bool {
	var newest *format.Superblock
	for i, m := range c.mems {
		if s, err := readSuperblock(m); c.known[i] && err == nil && (newest == nil || s.Epoch > newest.Epoch || s.Epoch == newest.Epoch && s.Sequence > newest.Sequence) {
			newest = s
		}
	}
	for i, m := range c.mems {
		if !c.known[i] {
			continue
		}
		s, err := readSuperblock(m)
		if err != nil || newest.Devices[s.Slot].State == format.DeviceGone {
			c.known[i] = false
			return true
		}
	}
	return false
}

// TestRemoveRefused: what cannot work is refused, and nothing is changed.
func TestRemoveRefused(t *testing.T) {
	r := newRig(t, 2, 32)
	ctx := context.Background()
	h := r.volume("v", 10<<20)
	data := make([]byte, 9<<20)
	fill(data, rand.New(rand.NewPCG(1, 2)))
	for off := 0; off < len(data); off += 64 << 10 {
		if err := write(h, int64(off), data[off:off+64<<10]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.a.RemoveDevice(ctx, 0, RemoveOptions{}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("remove a device whose data has no room elsewhere: %v", err)
	}
	if _, err := r.a.RemoveDevice(ctx, 2, RemoveOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("remove a device that is not there: %v", err)
	}
	if _, err := r.a.AddDevice(ctx, r.mems[1], nil); !errors.Is(err, ErrExists) {
		t.Errorf("add a device that is a member: %v", err)
	}
	if _, err := r.a.AddDevice(ctx, blockdev.NewMem("small", 2<<20), nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("add a device that is too small: %v", err)
	}
	forgets := errors.New("the disk of the data directory is full")
	m := blockdev.NewMem("new", format.SegmentsOffset+32*rigSegment)
	if _, err := r.a.AddDevice(ctx, m, func() error { return forgets }); !errors.Is(err, forgets) {
		t.Errorf("add a device that cannot be remembered: %v", err)
	}
	if n := len(r.a.Devices()); n != 2 {
		t.Errorf("%d devices after a failed addition", n)
	}
	if _, err := r.a.AddDevice(ctx, m, nil); err != nil {
		t.Errorf("once more: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := r.a.RemoveDevice(cancelled, 0, RemoveOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a removal that was called off: %v", err)
	}
	if d := r.a.Devices()[0]; d.State != "in service" {
		t.Errorf("after a removal that was called off the device is %+v", d)
	}
	r.expect("refused", h, append(data, make([]byte, 1<<20)...))
	if dev, err := r.a.RemoveDevice(ctx, 0, RemoveOptions{}); err != nil || dev != blockdev.Device(r.mems[0]) {
		t.Fatalf("remove: %v, %v", dev, err)
	}
	r.expect("removed", h, append(data, make([]byte, 1<<20)...))
}

// TestRemovedStaysGone: a flush that finds a dead device beside its removal does not put it down as a member again.
func TestRemovedStaysGone(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 7))
	r := newRig(t, 3, 32)
	r.copies = 2
	h := r.volume("v", 1<<20)
	r.dead[1].Store(true)
	if err := write(h, 0, make([]byte, 512<<10)); err != nil {
		t.Fatal(err)
	}
	dead := r.a.devs()[1]
	if _, err := r.a.RemoveDevice(context.Background(), 1, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := r.a.writeState(dead, format.DeviceReadOnly); err != nil { // as syncDevices does with an older list of devices
		t.Fatal(err)
	}
	r.away[1] = true
	r.kill(rng)
	if _, err := r.a.Volume("v"); err != nil {
		t.Error(err)
	}
}
