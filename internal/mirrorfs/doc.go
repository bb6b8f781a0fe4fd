// Package mirrorfs keeps the metadata store in two directories, best on two disks, so that it survives the loss of one.
//
// An FS is a vfs.FS of Pebble over one or two sides. Every change goes to all sides in service, and a sync returns when
// each of them has synced. Reads come from the first side in service; the other one answers if that fails, or if what
// it gives is not what was written: blocks of tables carry a checksum. A side that fails is dropped: the other's
// state record says so durably before the operation that failed returns, and from then on the FS goes on without it. A
// dropped side comes back when the FS is next opened, by being made equal to the other.
//
// A file system that is full is not a failure. The operation reports it, and leaves both sides so that it can be
// tried again: nothing of it is kept on one side only that a second try does not find.
//
// It goes below package storefs, which makes names durable in the order that the store relies on, and waits for room.
//
// The package owns the directories of its sides: the files of the store, and beside them those whose names begin with
// "mirror.", which the store does not see: the state record, a lock, and the store's reserve.
//
// Locks: drop holds mu while it writes a state record and calls nothing else of the package meanwhile. file.mu guards
// handles that are opened late; it may be held when mu is taken, never the other way round. Nothing holds a lock over
// the I/O of the store.
package mirrorfs
