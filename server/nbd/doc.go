// Package nbd serves block devices over the Network Block Device protocol.
//
// It owns sockets, negotiation, request parsing, replies and the memory they take. What is served comes
// through the interfaces Catalog and Export, declared here; the package knows nothing of how blocks are
// stored.
//
// Layouts, and the numbers in package nbdproto, come from the protocol's specification, doc/proto.md of NetworkBlockDevice/nbd
// (branch master), and for extended headers from the same file on its branch extension-ext-header.
//
// # A connection
//
// Each connection has one goroutine, its reader. It negotiates, then takes in as many requests as one
// read of the socket gives, and handles what cannot wait on the spot: all writes of the batch become one
// Export.WriteBatch, reads that need no disk are read straight into the reply buffer, and the replies
// leave in one write. Everything that may wait (a read from disk, a flush, a trim, a large payload)
// becomes a job for the connection's workers, and its reply leaves when it is ready. So do batches of
// writes while writing is slow. Replies of inline work are always sent before the reader waits for the
// socket, or for anything else.
//
// What a client can make the server hold is bounded: requests in flight and their payloads by limits of
// the connection and of the server, everything else by a few buffers of fixed size, which an idle
// connection gives back. Nobody waits for memory that another connection holds: without memory a request
// is handled piece by piece.
//
// # Locks
//
// A connection has two locks, jobs.mu (what is in flight) and sender.mu (what waits to be written). Neither
// is held across I/O or a call of an Export, and neither is taken while the other is held. Server.mu
// (the table of connections) is not held together with either.
package nbd
