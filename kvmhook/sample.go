package kvmhook

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"

	"lsad/kvmhook/uffd"
)

// A guest's use of a page that is there is seen by nobody. So of the pages that are prefetched a few are held back: they
// are in the hook's memory, and not in the guest. A fault on one shows that the guest uses it, and costs it a copy from
// memory. They are chosen at random, before it is known who asks for them, so what is seen of them holds for the others.

const (
	// sampleEvery is of how many prefetched pages one is held back, or of more where there would be too many.
	sampleEvery = 256
	// maxHeld bounds how many pages are ever held back, in 4 MiB of memory.
	maxHeld = 1024
	// expectHeld is how many there are of a large image: so few that the bound, which would favour what comes
	// first, is out of reach of chance.
	expectHeld = 896
)

// sampler chooses pages of a mapping. mapping.mu guards it.
type sampler struct {
	rng   *rand.Rand
	every int
	skip  int // pages until the next one that is chosen
}

func newSampler(every int, seed, stream uint64) *sampler {
	s := &sampler{rng: rand.New(rand.NewPCG(seed, stream)), every: every}
	s.next()
	return s
}

// next draws how many pages are passed over, as if each were chosen or not by itself.
func (s *sampler) next() {
	s.skip = int(min(math.Log(1-s.rng.Float64())/math.Log1p(-1/float64(s.every)), math.MaxInt32))
}

func (s *sampler) pick() bool {
	if s.skip--; s.skip >= 0 {
		return false
	}
	s.next()
	return true
}

// heldRoom is memory for pages that are held back. A place in it is used once: nobody who still copies from it ever finds
// another page there.
type heldRoom struct {
	mem  []byte
	used atomic.Int64 // places
}

func newHeldRoom() (*heldRoom, error) {
	mem, err := uffd.Map(maxHeld * smallPage) // takes memory where it is used only
	if err != nil {
		return nil, fmt.Errorf("%w: room for pages to hold back: %w", ErrMemory, err)
	}
	return &heldRoom{mem: mem}, nil
}

func (r *heldRoom) full() bool { return r.used.Load() >= maxHeld }

// keep returns the content in a place where it stays: where it lies if that is the source's mapping. nil if the room is
// full.
func (r *heldRoom) keep(content []byte, mapped bool) []byte {
	i := r.used.Add(1) - 1
	if i >= maxHeld {
		return nil
	}
	if mapped {
		return content
	}
	place := r.mem[i*smallPage : (i+1)*smallPage]
	copy(place, content)
	return place
}

func (r *heldRoom) close() {
	if r != nil {
		uffd.Unmap(r.mem)
	}
}

// sample has pages held back where something is prefetched at all. Huge pages are not: one of them is a lot to wait for.
func (s *session) sample(maps []*mapping) {
	if s.h.o.NoFill || s.h.o.Record {
		return
	}
	room, err := newHeldRoom()
	if err != nil {
		s.h.log.Warn("how much of the prefetch is used will not be known", "error", err)
		return
	}
	s.room = room
	every, seed := s.h.o.sampleEvery, s.h.o.sampleSeed
	if every == 0 {
		every = sampleEvery
	}
	if seed == 0 {
		seed = rand.Uint64()
	}
	every = max(every, int((s.data/smallPage+expectHeld-1)/expectHeld))
	for i, m := range maps {
		if m.page == smallPage {
			m.sample = newSampler(every, seed, uint64(i))
			m.chosen, m.held = make(map[int]bool), make(map[int]*heldPage)
		}
	}
}
