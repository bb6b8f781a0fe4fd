//go:build !lsad_slow

package main

import "lsad/internal/blockdev"

// slowed is the device as it is; see slow_on.go.
func slowed(d blockdev.Device) (blockdev.Device, error) { return d, nil }
