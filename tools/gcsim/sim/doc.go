// Package sim simulates an array of devices and drives the real code of package gc over it, in virtual time: the
// trigger, the timers, the victim policies and the placements are the ones that the server runs. What is
// simulated is the rest: segments and the map as plain tables, devices as queues with service times.
//
// Everything is single-threaded and deterministic: the same Config gives the same Report.
package sim
