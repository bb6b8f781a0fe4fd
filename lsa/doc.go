// Package lsa is the array: thin volumes in a log over several devices.
//
// It owns the devices' bytes, the metadata store and everything in between:
// segments and their states, the records appended to them, the map from layers
// to places (package blockmap), the catalogue of volumes, checkpoints and
// recovery. It serves handles; it knows no protocol, and when to collect is
// decided by its caller. Bytes on disk are package format's.
//
// The life of a change. Its data is checksummed, its map pages are pinned, then
// the append lock is taken for as long as it needs to get LSNs and places. The
// record is written without a lock. When it and all lower LSNs are written it
// commits: the commit lock is taken, the map changes, the writer is woken.
//
// Lock order: Array.membership, Array.admin, volume.gate, volume.stripes,
// Array.janitor.mu, Array.checkpoint.mu, Array.janitor.moving, Array.commit.mu,
// Array.append.mu, then the leaves (flush.mu, catalog.mu, blockmap's shards and
// tree, device.mu). No lock is held across I/O but membership, admin, the gates
// and stripes, which order whole operations, janitor.mu, checkpoint.mu, which
// checkpoints, rescues and the removal of a device take, moving, shared, over reads
// of the metadata store, and super.mu over the writing of superblocks.
package lsa
