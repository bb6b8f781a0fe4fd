package lsa

import (
	"sync"
	"sync/atomic"
	"time"
)

// readers lets a segment be used again, or a layer be taken apart, only when
// every read that may still look at what it was has ended.
type readers struct {
	mu    sync.Mutex // of quiesce
	turn  atomic.Uint32
	count [2]struct {
		atomic.Int64
		_ [56]byte
	}
}

// enter begins a read; the value it returns goes to exit.
func (r *readers) enter() uint32 {
	for {
		t := r.turn.Load()
		r.count[t&1].Add(1)
		if r.turn.Load() == t {
			return t
		}
		r.count[t&1].Add(-1)
	}
}

func (r *readers) exit(t uint32) { r.count[t&1].Add(-1) }

// quiesce returns when every read that began before the call has ended.
func (r *readers) quiesce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.turn.Add(1) - 1
	for r.count[t&1].Load() != 0 {
		time.Sleep(50 * time.Microsecond)
	}
}
