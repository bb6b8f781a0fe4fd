// Package crash explores what a loss of power or a kill -9 leaves of an array.
//
// A run is a chain of lives. In each life several goroutines work on an array
// of in-memory devices; at instants drawn from the seed, in the middle of
// operations of the devices or of the metadata store, copies are made of what
// a crash at that very instant could leave. Each copy is a state: it is
// opened, perhaps crashed again while it recovers, and what it holds is
// compared with what was acknowledged (oracle.go). One of the states is where
// the next life begins.
//
// With Config.Devices, whole devices die under the open array (faults.go), are gone
// when a state is opened and come back (loss.go), are added and removed
// (members.go), and one at a time is damaged (damage.go). Run.spare says which
// device the array can do without at the moment.
//
// The package touches nothing but memory, and with Config.Keep a directory below
// that, for the state that a violation was seen on (evidence.go). Of the array it
// uses what any caller can use, and VerifyBooks.
//
// Lock order: Run.membership, Run.trouble, Run.admin, volume.exclusive, units.mu,
// Run.mu; site.mu is taken with any of them held, and nothing under it but those
// of trail and logKeeper, which are leaves.
package crash
