//go:build lsad_slow

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"lsad/internal/blockdev"
)

// A build with the tag lsad_slow gives every device the service times of the disk that the environment variable
// LSAD_SLOW describes, a blockdev.Timing as JSON. So the whole server can be measured as it would run on several
// disks, on a machine that has one: the device files then lie in memory.

// slowClock wakes what waits for the devices. It lasts as long as the process.
var slowClock = sync.OnceValues(blockdev.NewFineClock)

// slowed is the device with those service times.
func slowed(d blockdev.Device) (blockdev.Device, error) {
	text := os.Getenv("LSAD_SLOW")
	if text == "" {
		return d, nil
	}
	var timing blockdev.Timing
	if err := json.Unmarshal([]byte(text), &timing); err != nil {
		return nil, fmt.Errorf("LSAD_SLOW: %w", err)
	}
	clock, err := slowClock()
	if err != nil {
		return nil, err
	}
	return blockdev.NewSlow(d, timing, clock)
}
