package main

import (
	"os"
	"runtime/debug"
)

// Memory beside the map cache, in bytes: buffers of NBD requests, the metadata store's memtables and cache, goroutines,
// and what the collector of the Go runtime needs to work with.
const (
	nbdBufferBytes = 64 << 20
	overheadBytes  = 96 << 20
)

// tuneMemory bounds the heap of this process. The map cache is nearly all of it and lives long, so that letting the heap
// double between collections, as the runtime does by default, would waste as much memory as the cache has. GOMEMLIMIT and
// GOGC in the environment win.
func tuneMemory(mapCache int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(mapCache + overheadBytes)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}
