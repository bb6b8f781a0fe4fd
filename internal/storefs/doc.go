// Package storefs is the file system as the metadata store gets it. The store, Pebble, relies on three things that file
// systems and disks do not promise, and ends the process where they do not hold:
//
// Names. Pebble makes a manifest, syncs its content, makes a marker that says by its name which manifest counts, removes
// the marker before it, and syncs the directory only then. After a loss of power a marker may be there without its
// manifest, or none at all. An FS syncs the directory before a marker is made or removed.
//
// Room. Pebble takes any failure to write a manifest for fatal. An FS that is full lets a reserve go and tries again:
// for what the store cannot do without until there is room, for all else for a moment, so that what fails gives back
// what it took.
//
// A disk that takes changes. Pebble also ends the process if a disk does not take what is written to a manifest, and
// tries everything else again at once, for ever. An FS tries the former again itself, waits a while before it returns
// any such error, and remembers it until somebody says that the store works again: see Problem.
//
// Besides, it lets compactions, for which nobody waits, rest now and then: see Options.Rest.
//
// Whoever closes the store does not wait for ever: see Hurry. When the time is up nothing is changed on disk any more, as if the
// process had been killed. The store is not told, since it tries again for ever what fails, and cannot be closed before
// it is done.
//
// The package owns no names and starts no goroutines. It has no locks; what it counts is atomic.
package storefs
