// Package nbdclient is a client of the Network Block Device protocol.
//
// It has two layers. Handshake negotiates on a connection that the caller made, and reads not one byte beyond the
// negotiation: the socket can then be handed to the kernel. Client is one connection that reads and asks for block
// status with many requests in flight. Reconnecting, and using several connections, is left to the caller, who knows
// how long it is worth waiting.
//
// Nothing that the server sends is believed before it is checked: lengths are bounded before memory is taken,
// offsets must lie in what was asked for, and a read has succeeded only when every byte of it came exactly once. A
// server that breaks the protocol ends the connection, and every request that was in flight with it.
//
// Layouts, and the numbers in package nbdproto, come from the protocol's specification, doc/proto.md of NetworkBlockDevice/nbd, those of
// extended headers from its branch extension-ext-header; URIs from its doc/uri.md.
//
// # Locks and goroutines
//
// A Client has one lock, mu, which is not held across I/O. It owns two goroutines, which Close waits for: one reads
// replies, one watches that they come. Requests are written by whichever caller finds nobody writing; what a caller
// may have to write for others is bounded by the number of requests in flight.
package nbdclient
