// Package qemu speaks the migration stream of QEMU, both ways, so that an unmodified QEMU can hand a virtual
// machine over to lsad and take it back.
//
//   - [Ingest] is the destination of QEMU's migrate command: pages go to a file, the device state is kept as it is.
//   - [Restore] is the source of a post-copy migration: the VM runs at the destination at once and pulls what
//     it touches; the rest follows in the background.
//   - [Migrate] moves a running VM whose RAM is a shared file: the device state passes through, the pages come
//     from the file.
//
// The stream has no specification but QEMU's source (migration/savevm.c, ram.c, postcopy-ram.c, of version 7.2
// here). All integers are big-endian. What the parser does not know it refuses by name.
//
// The package owns connections that it was given or has dialled. It reaches RAM through io.ReaderAt and the set
// of pages that are zero, and imports nothing of this module but its own subpackage qmp.
//
// # Post-copy
//
// A connection has two goroutines: one reads the return path and queues the pages asked for; the caller's own
// sends, what was asked for first. A page is sent once: QEMU refuses a page that it has. What was lost with a
// connection is known from the bitmaps that the destination sends when it is connected again.
//
// # Locks
//
// demand.mu guards the queue of pages asked for. [PageSet] is a bitmap of atomic words. Neither is held across I/O.
package qemu
