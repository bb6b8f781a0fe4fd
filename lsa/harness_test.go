package lsa

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// rig is an array on memory that can lose power.
type rig struct {
	t    testing.TB
	mems []*blockdev.Mem
	fs   *vfs.MemFS
	opts Options
	a    *Array

	copies int            // of volumes that are made from now on
	dead   [8]atomic.Bool // devices of which every operation fails
	hook   atomic.Pointer[func(blockdev.Op) error]
	away   [8]bool                               // devices that are not there when the array is opened
	wrap   func(m *blockdev.Mem) blockdev.Device // what an array is opened with in place of a device, nil for itself
}

var errDead = errors.New("the device does not answer")

const rigSegment = 256 << 10

// newRig creates and opens an array of devices with so many segments each.
func newRig(t testing.TB, devices, segments int) *rig {
	t.Helper()
	return newRigOf(t, slices.Repeat([]int{segments}, devices)...)
}

// newRigOf creates and opens an array of devices with these numbers of segments.
func newRigOf(t testing.TB, sizes ...int) *rig {
	t.Helper()
	r := &rig{t: t, fs: vfs.NewCrashableMem()}
	for i, segments := range sizes {
		r.mems = append(r.mems, blockdev.NewMem(fmt.Sprintf("mem%d", i), format.SegmentsOffset+int64(segments)*rigSegment))
		r.mems[i].OnOp = func(op blockdev.Op) error {
			if r.dead[i].Load() {
				return errDead
			}
			if hook := r.hook.Load(); hook != nil {
				return (*hook)(op)
			}
			return nil
		}
	}
	err := Create(context.Background(), CreateOptions{Devices: r.devices(), FS: r.fs, Meta: "meta", SegmentSize: rigSegment})
	if err != nil {
		t.Fatal(err)
	}
	r.opts = Options{CheckpointEvery: -1, CheckpointBytes: 1 << 20, MapCache: 1 << 20}
	r.open()
	t.Cleanup(func() {
		if r.a != nil {
			r.a.Close()
		}
	})
	return r
}

func (r *rig) devices() []blockdev.Device {
	var all []blockdev.Device
	for i, m := range r.mems {
		switch {
		case r.away[i]:
		case r.wrap != nil:
			all = append(all, r.wrap(m))
		default:
			all = append(all, m)
		}
	}
	return all
}

func (r *rig) open() {
	r.t.Helper()
	if err := r.tryOpen(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tryOpen() (err error) {
	o := r.opts
	o.Devices, o.FS, o.Meta = r.devices(), r.fs, "meta"
	if testing.Verbose() && o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(testWriter{r.t}, nil))
	}
	r.a, err = Open(context.Background(), o)
	return err
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) { w.t.Logf("%s", p); return len(p), nil }

// kill opens again what a kill -9 at this instant leaves.
func (r *rig) kill(rng *rand.Rand) {
	r.t.Helper()
	old := r.a
	var fs *vfs.MemFS
	r.mems = blockdev.KillAll(rng, r.mems, func() { fs = r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}) })
	old.Close()
	r.fs = fs
	r.open()
}

// crash opens again what a loss of power at this instant leaves.
func (r *rig) crash(rng *rand.Rand) {
	r.t.Helper()
	old := r.a
	var fs *vfs.MemFS
	r.mems = blockdev.CrashAll(rng, r.mems, func() { fs = r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}) })
	old.Close()
	r.fs = fs
	r.open()
}

func (r *rig) reopen() {
	r.t.Helper()
	if err := r.a.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.open()
}

func (r *rig) volume(name string, size int64) *Handle {
	r.t.Helper()
	if err := r.a.CreateVolumeWith(context.Background(), name, size, VolumeOptions{Copies: r.copies}); err != nil {
		r.t.Fatal(err)
	}
	return r.handle(name)
}

func (r *rig) handle(name string) *Handle {
	r.t.Helper()
	h, err := r.a.OpenVolume(name, OpenOptions{Client: "test"})
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

func write(h *Handle, off int64, p []byte) error {
	errs := []error{nil}
	h.WriteBatch([]int64{off}, [][]byte{p}, errs)
	return errs[0]
}

// collect collects, greedily, every segment with garbage, and checkpoints.
func (r *rig) collect() {
	r.t.Helper()
	for slot, d := range r.a.devs() {
		if d == nil || !d.takesWrites() {
			continue
		}
		var victims []uint32
		r.a.Segments(slot, func(s SegmentInfo) bool {
			if s.State == "sealed" && s.Live < s.Capacity*9/10 {
				victims = append(victims, s.Segment)
			}
			return true
		})
		for _, seg := range victims {
			// One that an earlier checkpoint freed meanwhile is no victim.
			if _, err := r.a.Collect(context.Background(), slot, seg, nil); err != nil && !errors.Is(err, ErrInvalid) {
				r.t.Fatal(err)
			}
			if err := r.a.Checkpoint(context.Background()); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}
