// Package admin serves the administration of an array over HTTP, and has the Go client of that API.
//
// It owns the paths, the JSON that goes over them, the metrics and the rules about who may change what. What
// is administered comes through the interfaces Array and Collector, declared here; the package imports
// neither the array nor the garbage collector.
//
// # The API
//
// Every path begins with its version. Lengths are in bytes, times in seconds, and the names of fields say so.
//
//	GET    /v1/status
//	GET    /v1/devices
//	GET    /v1/connections
//	GET    /v1/volumes                              POST: create
//	GET    /v1/volumes/NAME                         DELETE
//	POST   /v1/volumes/NAME/resize
//	POST   /v1/volumes/NAME/rename
//	POST   /v1/volumes/NAME/snapshots               create a snapshot
//	DELETE /v1/volumes/NAME/snapshots/SNAPSHOT
//	POST   /v1/volumes/NAME/snapshots/SNAPSHOT/clone
//	POST   /v1/volumes/NAME/snapshots/SNAPSHOT/revert
//	GET    /v1/gc                                   PATCH: change settings
//	POST   /v1/gc/run
//	POST   /v1/scrub
//	GET    /v1/work                                 how far a rebuild or a scrub is
//	GET    /v1/ublk                                 POST: make a block device of a volume
//	DELETE /v1/ublk/DEVICE?force=true               DEVICE is a path, escaped, or a volume
//	GET    /v1/images                               POST: import (admin socket only)
//	GET    /v1/images/NAME                          DELETE
//	POST   /v1/images/NAME/rename
//	POST   /v1/images/NAME/fork
//	GET    /v1/images/NAME/memory                   (admin socket only)
//	GET    /v1/images/NAME/state                    (admin socket only)
//	GET    /v1/images/NAME/places?offset=O&blocks=N (admin socket only)
//	GET    /v1/images/NAME/working-set              PUT
//	POST   /v1/images/NAME/restore                  (admin socket only)
//	POST   /v1/ingest                               (admin socket only)
//	GET    /metrics, /healthz, / (the status)
//	GET    /debug/pprof/ (only where Access.Debug is set)
//
// Imports answer with a line of JSON for each sign of progress, {"progress":{...}}, and one with the end, {"result":{...}}
// or {"error":{...}}; they end when the client goes away.
//
// An error is a body {"error":{"code":...,"message":...}} with a code of the list at Code, which programs may
// rely on, and a message for people.
//
// # Locks
//
// IO.mu guards the table of recorders; the recorders themselves are atomic counters. No other lock is kept, and
// none is held while the Array is called.
package admin
