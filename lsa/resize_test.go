package lsa

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
)

// TestGrowShowsZeros: where a shrink survived the loss of a device and the trim before it did not, what lay beyond the
// end is not there again when the volume grows.
func TestGrowShowsZeros(t *testing.T) {
	r := newRig(t, 2, 32)
	h := r.volume("v", 1<<20)
	data := make([]byte, 1<<20)
	fill(data, rand.New(rand.NewPCG(4, 4)))
	if err := write(h, 0, data); err != nil {
		t.Fatal(err)
	}
	if err := r.a.Snapshot(context.Background(), "v", "s"); err != nil {
		t.Fatal(err)
	}
	if err := write(h, 768<<10, data[:128<<10]); err != nil {
		t.Fatal(err)
	}
	h.Close()
	if err := r.a.change("shrink, and lose the trim of", adminChange{Op: "resize", Volume: "v", Size: 256 << 10}); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{512 << 10, 2 << 20} {
		if err := r.a.ResizeVolume(context.Background(), "v", size, false); err != nil {
			t.Fatal(err)
		}
		got, want := make([]byte, size), make([]byte, size)
		copy(want, data[:256<<10])
		if err := r.handle("v").ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("of %d bytes some are not zero", size)
		}
	}
	got := make([]byte, 1<<20)
	if err := r.handle("v@s").ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the snapshot changed, or %v", err)
	}
}

// Who reads a snapshot does not mind that its volume shrinks.
func TestShrinkBesideReaderOfSnapshot(t *testing.T) {
	r := newRig(t, 1, 24)
	h := r.volume("v", 8<<20)
	if err := write(h, 4<<20, []byte("it is kept here")); err != nil {
		t.Fatal(err)
	}
	if err := r.a.Snapshot(t.Context(), "v", "s"); err != nil {
		t.Fatal(err)
	}
	s := r.handle("v@s")
	if err := r.a.ResizeVolume(t.Context(), "v", 1<<20, true); err == nil {
		t.Error("shrank under a client")
	}
	h.Close()
	if err := r.a.ResizeVolume(t.Context(), "v", 1<<20, true); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 15)
	if err := s.ReadAt(p, 4<<20); err != nil || string(p) != "it is kept here" {
		t.Errorf("%q, %v", p, err)
	}
}
