// Package gc decides when a device of the array collects garbage, which segment it collects, and to which open
// segment each block goes. It knows no file format and imports no other package of lsad: what it collects is
// behind the interface Target, so that the server and the simulator (tools/gcsim) run the very same code.
//
// Three parts, each usable on its own:
//
//   - the trigger (trigger.go, thresholds.go): pure functions of a device's own count of unused segments, the
//     time since its timer was armed, and its thresholds;
//   - the policies: Policy picks a victim, Placement separates blocks by how long they are expected to live;
//   - the runner: Device is the state machine of one device, driven by Step(now); Collector holds the devices
//     of an array, the period of their timers and the settings; Run is a thin loop around Step.
//
// Devices do not coordinate. A device's trigger sees its own count, its own timer and its own thresholds. All
// that devices share is the setting of the period, which moves slowly with the fill rate and moves for all of
// them at once, so that the distances between their turns stay what they are.
//
// Time is always a parameter: nothing in the state machine reads a clock or starts a goroutine. Only Run does.
//
// Lock order: Collector.mu, then Device.mu, then whatever lock the Target takes in Count and Candidates. No lock
// is held while Target.Collect or Target.Release run.
package gc
