package nbd

import "lsad/internal/nbdproto"

// Size constraints that every export advertises. They are the specification's defaults, so that a client
// that does not ask for them is served the same.
const (
	// MinBlockSize is the smallest unit of a request, in bytes.
	MinBlockSize = 1
	// PreferredBlockSize is the unit below which a write needs a read first, in bytes.
	PreferredBlockSize = 4096
	// MaxPayload is the longest payload of a request or a reply, in bytes.
	MaxPayload = nbdproto.MaxPayload
)
