//go:build race

package blockdev

// raceEnabled: a sync.Pool drops some of what it is given, on purpose.
const raceEnabled = true
