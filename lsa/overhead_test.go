package lsa

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestOverhead holds what the log may cost: an eighth of the data for single
// writes of 4 KiB, under 2 % for 32 at a time.
func TestOverhead(t *testing.T) {
	for _, c := range []struct {
		depth int
		most  float64
	}{{1, 0.125}, {32, 0.02}} {
		t.Run(fmt.Sprint("depth", c.depth), func(t *testing.T) {
			r := newRig(t, 2, 64)
			h := r.volume("v", 64<<20)
			before := r.a.Metrics()
			rng := rand.New(rand.NewPCG(1, 1))
			offs, data, errs := make([]int64, c.depth), make([][]byte, c.depth), make([]error, c.depth)
			for range 20 {
				for i := range offs {
					offs[i], data[i] = rng.Int64N(64<<8)*4096, make([]byte, 4096)
				}
				h.WriteBatch(offs, data, errs)
				if err := errors.Join(errs...); err != nil {
					t.Fatal(err)
				}
			}
			after := r.a.Metrics()
			user := after.UserBytes - before.UserBytes
			overhead := after.OverheadBytes - before.OverheadBytes
			if user != int64(20*c.depth*4096) || overhead <= 0 || float64(overhead) > c.most*float64(user) {
				t.Fatalf("%d bytes of headers for %d of data, want at most %g %%", overhead, user, c.most*100)
			}
		})
	}
}

// TestConcurrent has many writers, each with blocks of its own, beside
// snapshots, checkpoints, collections and readers, and a kill at the end.
func TestConcurrent(t *testing.T) {
	const writers, blocks, rounds = 8, 64, 60
	r := newRig(t, 3, 64)
	r.volume("v", writers*blocks*4096).Close()
	ctx, stop := context.WithCancel(context.Background())
	var beside, wg sync.WaitGroup
	every := func(fn func(i int) error) {
		beside.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := fn(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	every(func(int) error { return r.a.Checkpoint(context.Background()) })
	every(func(i int) error {
		name := fmt.Sprint("s", i)
		if err := r.a.Snapshot(context.Background(), "v", name); err != nil {
			return err
		}
		return r.a.DeleteVolume(context.Background(), "v@"+name)
	})
	every(func(i int) error {
		var victims []uint32
		slot := i % 3
		r.a.Segments(slot, func(s SegmentInfo) bool {
			if s.State == "sealed" && s.Live < s.Capacity/2 {
				victims = append(victims, s.Segment)
			}
			return true
		})
		for _, v := range victims {
			if _, err := r.a.Collect(context.Background(), slot, v, nil); err != nil && !errors.Is(err, ErrInvalid) {
				return err
			}
		}
		return nil
	})
	for w := range writers {
		wg.Go(func() {
			h, err := r.a.OpenVolume("v", OpenOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			defer h.Close()
			if err := writeAndRead(h, w, blocks, rounds); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	stop()
	beside.Wait()
	r.kill(rand.New(rand.NewPCG(3, 3)))
	h := r.handle("v")
	p := make([]byte, 4096)
	for b := range writers * blocks {
		if err := h.ReadAt(p, int64(b)*4096); err != nil {
			t.Fatal(err)
		}
		if want := stampOf(b/blocks, b%blocks, rounds-1); p[0] != want || p[4095] != want {
			t.Fatalf("block %d holds %d, want %d", b, p[0], want)
		}
	}
}

func stampOf(writer, block, round int) byte { return byte(writer*31 + block*7 + round + 1) }

// writeAndRead writes the writer's blocks again and again, in batches and in
// halves of blocks, and reads back what it wrote before.
func writeAndRead(h *Handle, writer, blocks, rounds int) error {
	rng := rand.New(rand.NewPCG(uint64(writer), 5))
	p, half := make([]byte, 4096), make([]byte, 2048)
	for round := range rounds {
		for _, b := range rng.Perm(blocks) {
			off := int64(writer*blocks+b) * 4096
			if round > 0 {
				if err := h.ReadAt(p, off); err != nil {
					return err
				}
				if want := stampOf(writer, b, round-1); p[0] != want || p[4095] != want {
					return fmt.Errorf("block %d of writer %d holds %d and %d, want %d", b, writer, p[0], p[4095], want)
				}
			}
			if rng.IntN(8) == 0 {
				for i := range half {
					half[i] = stampOf(writer, b, round)
				}
				if err := errors.Join(write(h, off, half), write(h, off+2048, half)); err != nil {
					return err
				}
				continue
			}
			for i := range p {
				p[i] = stampOf(writer, b, round)
			}
			if err := write(h, off, p); err != nil {
				return err
			}
		}
	}
	return nil
}
