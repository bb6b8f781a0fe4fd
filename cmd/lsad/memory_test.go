package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestHeapFloor(t *testing.T) {
	h := heapFloor{bytes: 96 << 20}
	for live, want := range map[int64]int{
		0: 2300, 4 << 20: 2300, 8 << 20: 1100, 32 << 20: 200, 64 << 20: 50, 80 << 20: 50, 300 << 20: 50,
	} {
		if got := h.percentFor(live); got != want {
			t.Errorf("%d MiB live: %d %%, want %d", live>>20, got, want)
		}
	}
}

// TestHeapFloorFollows: after a collection the setting is what the heap that is left asks for.
func TestHeapFloorFollows(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	h := &heapFloor{bytes: 1 << 30}
	defer h.ended.Store(true)
	h.adjust()
	h.watch()
	set := func() int {
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	small := set()
	held := make([]byte, 500<<20)
	for until := time.Now().Add(10 * time.Second); set() > 110; {
		if runtime.GC(); time.Now().After(until) {
			t.Fatalf("with 500 MiB live of a floor of 1 GiB, %d %%; before %d %%", set(), small)
		}
	}
	runtime.KeepAlive(held)
	for until := time.Now().Add(10 * time.Second); set() < small/2; {
		if runtime.GC(); time.Now().After(until) {
			t.Fatalf("with nothing live, %d %%; before %d %%", set(), small)
		}
	}
}
