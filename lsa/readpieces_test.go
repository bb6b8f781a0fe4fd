package lsa

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// coldDisk has nothing at hand, and notes what it is asked for.
type coldDisk struct {
	*blockdev.Mem
	log *diskLog
}

type diskLog struct {
	mu    sync.Mutex
	on    bool
	asked map[string]int // ranges that were prefetched and not read yet
	order []string       // "prefetch" and "read"
	lone  []string       // ranges that were waited for unasked
}

func (d coldDisk) span(off int64, n int) string { return fmt.Sprint(d.Name(), " ", off, "+", n) }

func (d coldDisk) TryReadAt(p []byte, off int64) error { return blockdev.ErrWouldBlock }

func (d coldDisk) Prefetch(off, n int64) {
	d.log.mu.Lock()
	defer d.log.mu.Unlock()
	if d.log.on {
		d.log.asked[d.span(off, int(n))]++
		d.log.order = append(d.log.order, "prefetch")
	}
}

func (d coldDisk) ReadAt(p []byte, off int64) error {
	d.log.mu.Lock()
	if d.log.on && off >= format.SegmentsOffset { // superblocks are looked at now and then
		d.log.order = append(d.log.order, "read")
		if d.log.asked[d.span(off, len(p))]--; d.log.asked[d.span(off, len(p))] < 0 {
			d.log.lone = append(d.log.lone, d.span(off, len(p)))
		}
	}
	d.log.mu.Unlock()
	return d.Mem.ReadAt(p, off)
}

// begin forgets what was noted, and notes from now on.
func (l *diskLog) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.on, l.asked, l.order, l.lone = true, map[string]int{}, nil, nil
}

// counts says how often the disks were asked before they were first waited for, and after, and how often waited for.
func (l *diskLog) counts() (before, after, reads int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.on = false
	for _, what := range l.order {
		switch {
		case what == "read":
			reads++
		case reads == 0:
			before++
		default:
			after++
		}
	}
	return before, after, reads
}

// TestScatteredReads: whoever reads blocks that lie apart waits for the disks once they know of all of them, however
// the read begins and ends, with holes between, with one copy and with two.
func TestScatteredReads(t *testing.T) {
	const blocks = 200
	for _, copies := range []int{1, 2} {
		t.Run(fmt.Sprint(copies, " copies"), func(t *testing.T) {
			log := &diskLog{}
			r := newRig(t, 3, 40)
			r.wrap = func(m *blockdev.Mem) blockdev.Device { return coldDisk{m, log} }
			r.reopen()
			if err := r.a.CreateVolumeWith(context.Background(), "v", 4<<20, VolumeOptions{Copies: copies}); err != nil {
				t.Fatal(err)
			}
			h := r.handle("v")
			rng := rand.New(rand.NewPCG(3, uint64(copies)))
			want := make([]byte, blocks*format.BlockSize)
			for _, i := range rng.Perm(blocks) {
				if i%7 == 0 {
					continue // a hole
				}
				part := want[i*format.BlockSize:][:format.BlockSize]
				fill(part, rng)
				mustWrite(t, h, int64(i)*format.BlockSize, part)
			}
			for range 40 {
				off := rng.IntN(len(want) - 3*format.BlockSize)
				n := 2*format.BlockSize + rng.IntN(len(want)-off-2*format.BlockSize)
				got := make([]byte, n)
				log.begin()
				err := h.ReadAt(got, int64(off))
				before, after, reads := log.counts()
				if err != nil || !bytes.Equal(got, want[off:off+n]) {
					t.Fatalf("read of %d at %d: %v, or other bytes", n, off, err)
				}
				if reads > 1 && (before != reads || after > 0 || len(log.lone) > 0) {
					t.Fatalf("read of %d at %d: asked for %d before and %d after the first wait of %d; unasked %v", n, off, before, after, reads, log.lone)
				}
			}
		})
	}
}

// TestScatteredDamage: a damaged copy that is met on a disk is passed over for the other one, and no bytes of it get out.
func TestScatteredDamage(t *testing.T) {
	log := &diskLog{}
	r := newRig(t, 2, 40)
	r.wrap = func(m *blockdev.Mem) blockdev.Device { return coldDisk{m, log} }
	r.reopen()
	if err := r.a.CreateVolumeWith(context.Background(), "v", 4<<20, VolumeOptions{Copies: 2}); err != nil {
		t.Fatal(err)
	}
	h := r.handle("v")
	rng := rand.New(rand.NewPCG(3, 9))
	want := make([]byte, 64*format.BlockSize)
	for _, i := range rng.Perm(64) {
		part := want[i*format.BlockSize:][:format.BlockSize]
		fill(part, rng)
		mustWrite(t, h, int64(i)*format.BlockSize, part)
	}
	m, mask := r.mems[0], make([]byte, 512)
	for i := range mask {
		mask[i] = 0x55
	}
	for at := int64(format.SegmentsOffset) + 512; at < m.Size(); at += 3 * format.BlockSize {
		m.Corrupt(at, mask)
	}
	got := make([]byte, len(want))
	for range 3 {
		if err := h.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%v, or other bytes", err)
		}
	}
	if r.a.counters.readsOfOther.Load() == 0 {
		t.Error("no damaged copy was met")
	}
}

// TestRebuildAsksAhead: what a rebuild is about to read, the disks know of.
func TestRebuildAsksAhead(t *testing.T) {
	log := &diskLog{}
	r := newRig(t, 3, 40)
	r.wrap = func(m *blockdev.Mem) blockdev.Device { return coldDisk{m, log} }
	r.reopen()
	if err := r.a.CreateVolumeWith(context.Background(), "v", 4<<20, VolumeOptions{Copies: 2}); err != nil {
		t.Fatal(err)
	}
	h := r.handle("v")
	data := make([]byte, h.Size())
	fill(data, rand.New(rand.NewPCG(3, 4)))
	mustWrite(t, h, 0, data)
	if err := h.Flush(); err != nil { // nothing has to be rescued
		t.Fatal(err)
	}
	log.begin()
	r.a.takeOutOfService(r.a.devs()[1], errDead)
	r.rebuilt()
	before, _, reads := log.counts()
	if reads == 0 || before < rebuildAhead || len(log.lone) > 0 {
		t.Errorf("%d reads, asked for %d before the first; unasked %v", reads, before, log.lone)
	}
	r.expect("rebuilt", h, data)
}
