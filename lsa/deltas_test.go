package lsa

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"lsad/internal/blockdev"
	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// forgetDeltas makes the devices those of an array that was made before there were deltas, and kept views.
func (r *rig) forgetDeltas() {
	r.t.Helper()
	for _, d := range r.mems {
		for _, off := range []int64{format.SuperblockOffsetA, format.SuperblockOffsetB} {
			buf := make([]byte, format.SuperblockSize)
			if err := d.ReadAt(buf, off); err != nil {
				r.t.Fatal(err)
			}
			s, err := format.DecodeSuperblock(buf)
			if err != nil {
				r.t.Fatal(err)
			}
			s.Incompat &^= format.FeatureDeltas | format.FeatureViews
			if err := errors.Join(d.WriteVec([][]byte{format.EncodeSuperblock(s)}, off), d.Sync()); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// deltasStored counts the deltas in the metadata store of an array that is closed.
func (r *rig) deltasStored() (n int) {
	r.t.Helper()
	merger := &pebble.Merger{Name: blockmap.Merger.Name, Merge: func(key, value []byte) (pebble.ValueMerger, error) {
		n++
		return blockmap.Merger.Merge(key, value)
	}}
	db, err := pebble.Open("meta", &pebble.Options{FS: r.fs, ReadOnly: true, Merger: merger, FormatMajorVersion: pebble.FormatNewest, Logger: pebbleLogger{log: slog.New(slog.DiscardHandler)}})
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	it, err := db.NewIter(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
	}
	if err := it.Close(); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// deltasToCome counts those that a checkpoint now would store. The store may soon have put them together.
func (r *rig) deltasToCome() (n int) {
	r.t.Helper()
	r.a.commit.mu.Lock()
	defer r.a.commit.mu.Unlock()
	batch := r.a.db.NewBatch()
	defer batch.Close()
	c := r.a.blocks.Begin(r.a.checkpoint.number + 1)
	defer c.Failed()
	if err := c.WriteTo(batch); err != nil {
		r.t.Fatal(err)
	}
	for b := batch.Reader(); ; {
		kind, _, _, ok, err := b.Next()
		if err != nil {
			r.t.Fatal(err)
		}
		if !ok {
			return n
		}
		if kind == pebble.InternalKeyKindMerge {
			n++
		}
	}
}

// TestOlderArrayGetsDeltas: an array that was made before there were deltas has none as long as a device may say that it can be
// read without knowing them, and has them from then on.
func TestOlderArrayGetsDeltas(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	old := newRig(t, 2, 40)
	h := old.volume("v", 2<<20)
	want := make([]byte, 2<<20)
	change := func(h *Handle, off, n int) {
		t.Helper()
		for i := off; i < off+n; i++ {
			want[i] = byte(rng.Uint32())
		}
		if err := write(h, int64(off), want[off:off+n]); err != nil {
			t.Fatal(err)
		}
	}
	change(h, 0, len(want))
	old.reopen()
	change(old.handle("v"), 100<<10, 4096) // which recovery will find

	r := old.killed(rng)
	r.forgetDeltas()
	errSuper := errors.New("no superblock is written")
	for _, m := range r.mems {
		m.OnOp = func(op blockdev.Op) error {
			if op.Kind == blockdev.OpWrite && op.Off < format.SegmentsOffset {
				return errSuper
			}
			return nil
		}
	}
	if err := r.tryOpen(); !errors.Is(err, errSuper) {
		t.Fatalf("opened without superblocks: %v", err)
	}
	if n := r.deltasStored(); n != 0 {
		t.Fatalf("%d deltas are stored while superblocks do not say so", n)
	}

	for _, m := range r.mems {
		m.OnOp = nil
	}
	r.open()
	defer func() { r.a.Close() }()
	for _, m := range r.mems {
		if s, err := readSuperblock(m); err != nil || s.Incompat&format.FeatureDeltas == 0 {
			t.Fatalf("superblock of %s: %+v, %v", m.Name(), s, err)
		}
	}
	change(r.handle("v"), 200<<10, 4096)
	if n := r.deltasToCome(); n != 1 {
		t.Fatalf("%d deltas of the page in which a block changed", n)
	}
	change(r.handle("v"), 300<<10, 4096)
	r.reopen()
	got := make([]byte, len(want))
	if err := r.handle("v").ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read back something else: %v", err)
	}
}
