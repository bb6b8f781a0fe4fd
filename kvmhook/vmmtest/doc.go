// Package vmmtest is a VMM for tests and benchmarks of the page server: a process that maps memory, registers it with
// userfaultfd, shakes hands as Firecracker does, and touches, writes and removes pages as it is told.
//
// It is the calling program again, started with an environment variable that Main looks at: a goroutine that waits for
// a page stops the runtime that it is in, so the VMM must be another process than the server.
package vmmtest
