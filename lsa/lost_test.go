package lsa

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"lsad/lsa/format"
)

// A device dies with records of a volume with one copy that no sync covered.
// That volume's lost blocks are errors, and so are its flushes; volumes with two
// copies go on, for as long as there is room, and after a start.
func TestLostRecords(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	r := newRig(t, 3, 48)
	one := r.volume("one", 1<<20)
	r.copies = 2
	two := r.volume("two", 2<<20)
	data := make([]byte, 2<<20)
	old := make([]byte, 1<<20)
	put := func(h *Handle, want []byte, i int) error {
		p := want[i*format.BlockSize:][:format.BlockSize]
		fill(p, rng)
		return write(h, int64(i)*format.BlockSize, p)
	}
	for i := range 512 {
		if err := put(two, data, i); err != nil {
			t.Fatal(err)
		}
		if err := put(one, old, i%256); err != nil {
			t.Fatal(err)
		}
	}
	if err := two.Flush(); err != nil {
		t.Fatal(err)
	}
	// Some of these go to the device that dies, and others do not. A checkpoint
	// in the background would sync them.
	if err := r.a.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.a.checkpoint.mu.Lock()
	bad := r.a.devs()[1]
	for i, there := 0, 0; there < 8; i++ {
		r.a.append.mu.Lock()
		r.a.append.stretch = 0 // so that the next write goes to another device
		r.a.append.mu.Unlock()
		before := bad.appended.Load()
		if err := put(one, old, i); err != nil {
			t.Fatal(err)
		}
		if bad.appended.Load() > before {
			there++
		}
		if err := put(two, data, i); err != nil {
			t.Fatal(err)
		}
	}
	r.dead[1].Store(true)
	r.a.checkpoint.mu.Unlock()
	for round := range 20 {
		for range 256 {
			if err := put(two, data, rng.IntN(512)); err != nil {
				t.Fatalf("round %d: a write to two copies: %v", round, err)
			}
		}
		r.a.rescueAll()
		if err := two.Flush(); err != nil && round > 0 {
			t.Fatalf("round %d: a flush of two copies: %v", round, err)
		}
		r.collect()
	}
	if err := one.Flush(); !errors.Is(err, ErrFailed) {
		t.Errorf("a flush of one copy: %v", err)
	}
	r.a.rescueAll() // there is nothing left to save
	r.expectLost("alive", two, data, one, old)
	if err := r.a.CreateVolume(context.Background(), "three", 1<<20); err != nil {
		t.Errorf("a new volume: %v", err)
	}
	r.away[1] = true
	r.opts.Degraded = true
	r.kill(rng)
	r.expectLost("without the device", r.handle("two"), data, r.handle("one"), old)
}

// expectLost: the volume with two copies is whole; some blocks of that with one
// are errors, and no block is anything else than the last that was written.
func (r *rig) expectLost(when string, two *Handle, data []byte, one *Handle, want []byte) {
	r.t.Helper()
	r.expect(when, two, data)
	lost := 0
	for i := range len(want) / format.BlockSize {
		p := make([]byte, format.BlockSize)
		if err := one.ReadAt(p, int64(i)*format.BlockSize); err != nil {
			lost++
		} else if string(p) != string(want[i*format.BlockSize:][:format.BlockSize]) {
			r.t.Fatalf("%s: block %d is neither lost nor what was written last", when, i)
		}
	}
	if lost == 0 || lost == len(want)/format.BlockSize {
		r.t.Errorf("%s: %d blocks of one copy are lost", when, lost)
	}
}

// However long it takes until records of a failed device are given up, a flush
// that is under way then ends.
func TestFlushWhileLost(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	r := newRig(t, 2, 48)
	one := r.volume("one", 1<<20)
	p := make([]byte, format.BlockSize)
	for i := range 200 {
		fill(p, rng)
		if err := write(one, int64(i)*format.BlockSize, p); err != nil {
			t.Fatal(err)
		}
	}
	r.dead[0].Store(true)
	ended := make(chan error, 4)
	for range cap(ended) {
		go func() { ended <- one.Flush() }()
	}
	for range cap(ended) {
		select {
		case err := <-ended:
			if !errors.Is(err, ErrFailed) {
				t.Errorf("flush: %v", err)
			}
		case <-time.After(time.Minute):
			t.Fatal("a flush does not end")
		}
	}
}
