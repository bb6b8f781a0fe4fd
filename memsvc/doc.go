// Package memsvc keeps the memory of virtual machines as images: it imports them, lists, forks, deletes and
// reads them.
//
// An image is a volume that is never written again (sealed). Its address space is the guest's RAM blocks, one
// after the other, and behind them, from the next page on, the VMM's device state. What was free in the guest or
// all zeros is a hole. What an image is made of says its Manifest, which is stored with the volume as the
// volume's attributes; so an image is complete and visible in one atomic step, or not at all. A fork is a
// writable clone of an image.
//
// While an image is written its volume has a staging name and staging attributes, which say what else was made
// for it. Sweep deletes what a dead process left behind.
//
// The package owns the format of those attributes and the names that begin with "importing.". Storage comes
// through the interfaces Store and Volume; it imports neither the array nor a server. Which pages are free finds
// kvmhook/guestmem. Files are read only.
//
// # Locks
//
// Service.mu guards the table of names that imports have taken and the changes of one image's attributes, which
// are read, changed and written back. Store may be called with it held; no data is read or written under it.
// Writer.mu guards what a writer knows of its progress and is taken after nothing else.
package memsvc
