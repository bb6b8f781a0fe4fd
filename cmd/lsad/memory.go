package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"lsad/internal/config"
)

// nbdBufferBytes bounds the memory of the payload of NBD requests, over all connections.
const nbdBufferBytes = 64 << 20

// Memory beside the map cache, in bytes: buffers of requests, the metadata store, goroutines. minMemory is the least
// that a server needs which is busy, however small its map cache.
const (
	overheadBytes = 24 << 20
	minMemory     = 192 << 20
)

// checkMemory refuses a map cache for which this machine has no room.
func checkMemory(mapCache int64) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil // it cannot be told
	}
	if total := int64(info.Totalram) * int64(info.Unit); mapCache > total {
		return config.Usagef("map-cache %v: this machine has %s of memory", config.Size(mapCache), size(total))
	}
	return nil
}

// tuneMemory bounds the heap of this process. The map cache is nearly all of it and lives long, so that letting the heap
// double between collections, as the runtime does by default, would waste as much memory as the cache has. Pages of the
// map grow as they fill, which leaves gaps of about a quarter of the cache. GOMEMLIMIT and GOGC in the environment win.
//
// A small heap is not collected before it has grown to a quarter of the limit: each collection takes processors that
// clients wait for.
//
// Measured with the default map cache, which gives a limit of 344 MiB: during 5 million random 4 KiB writes to a volume of
// 1 TiB at most 388 to 413 MiB were resident, 22 of them the program itself. Built with C it was more: the metadata store then has
// memory beside the heap.
func tuneMemory(mapCache int64) {
	limit := max(minMemory, mapCache+mapCache/4+overheadBytes)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
	if os.Getenv("GOGC") == "" {
		h := &heapFloor{bytes: limit / 4}
		h.adjust()
		h.watch()
	}
}

// gcPercent is by how much the heap may grow between two collections, where it is above the floor.
const gcPercent = 50

// heapFloor keeps the runtime from collecting a heap that is smaller than so many bytes.
type heapFloor struct {
	bytes   int64
	percent int // as it is set; 0: not yet
	ended   atomic.Bool
}

// mark is an object that nothing refers to. That it was collected says that a collection is over.
type mark struct{ _ [64]byte }

// watch adjusts after each collection, until it is ended.
func (h *heapFloor) watch() {
	runtime.AddCleanup(new(mark), func(h *heapFloor) {
		if !h.ended.Load() {
			h.adjust()
			h.watch()
		}
	}, h)
}

func (h *heapFloor) adjust() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := h.percentFor(int64(live[0].Value.Uint64()))
	// Setting it stops the process for a moment.
	if diff := percent - h.percent; diff*diff*25 > h.percent*h.percent {
		h.percent = percent
		debug.SetGCPercent(percent)
	}
}

// percentFor is by how much the heap may grow where so many bytes of it live.
func (h *heapFloor) percentFor(live int64) int {
	live = max(live, 4<<20)
	return int(max(gcPercent, (h.bytes-live)*100/live))
}
