// Package gcbench measures what clients notice of garbage collection: it loads a volume over NBD at a steady rate
// and takes the time of every request, beside what the server says of its collections meanwhile.
//
// The load is open: requests are due at times drawn beforehand, whether or not earlier ones were answered, so that
// a server that stops for a while is charged for every request that it kept waiting.
//
// The package starts no server; its caller does. A Conn has one lock, which is not held across I/O, and owns two
// goroutines, which Close waits for.
package gcbench
