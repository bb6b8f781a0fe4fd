// Package kvmhook is the destination side of a virtual machine's memory: it serves the pages of an image to a VMM
// through userfaultfd, while the guest runs.
//
// A VMM connects to a unix socket and sends its mappings with their userfaultfd, in Firecracker's handshake. From
// then on a guest that touches a missing page waits until this package has put it there: zeros where the image has
// a hole, else what a Source says, together with its neighbours. Beside it a background stream fills the rest.
//
// The package owns the socket's connections, the userfaultfd, its own buffers, and what is known of each page. It
// reaches storage through the interface Source, and touches no guest memory but through the kernel.
//
// # Pages
//
// A page is missing, fetching, held, settled or poisoned; the last two are for good. Settled means that the image's
// content must not be put there any more: because it is there, or because the page was removed, after which it is zeros
// for ever. So a fault on a settled page is always answered with zeros, which the kernel refuses (EEXIST) where a page is
// there. Only fetching and held pages are filled with content.
//
// Held means that its content has come and is kept in this process, to see whether the guest asks for it: the only way to
// know what the prefetch is good for. Nobody else knows of it, so in what is kept for another hook it is not settled.
//
// # Removal
//
// The kernel tells of a removal by an event, and lets the VMM go on removing as soon as the event is read. Until then
// it refuses to install pages (EAGAIN). So what must not happen is that content is installed after the event was read
// and before its pages are marked: gate is held for writing from before events are read until they are applied, and
// for reading around every look at a page's state with the installation that follows from it. EAGAIN is answered by
// letting the reader read, and then looking at the state again.
//
// # Locks
//
// In this order: Session.gate, mapping.mu. mapping.mu is never held across a system call. gate is held across the
// ioctls that install pages, a few dozen pages at a time, which copy memory and wait for nothing that takes gate;
// it is not held while a source is asked.
//
// # Goroutines
//
// Session.Run owns all of them and returns when they have ended: the reader of events, the workers of the background
// fill, the last of which puts what is held back into the guest some time after, and the watch over the VMM's life. Answers to demanded pages arrive on goroutines of the Source.
package kvmhook
