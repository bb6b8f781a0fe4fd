package kvmhook

import "context"

// Source is where an image's content comes from. Its methods may be called by many goroutines at once.
//
// An outage is the source's own business: it waits and tries again. An error is the end of it, except that one that
// wraps ErrLost is about the range that was asked for and no other.
type Source interface {
	// Size of the image, in bytes. It does not change.
	Size() int64
	// Zeros calls fn for ranges of the image that read as zeros, in order of address.
	Zeros(ctx context.Context, fn func(off, n int64)) error
	// ReadAt fills p, which nobody waits for urgently.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// Start begins to fill p, for which a guest waits, and does not wait itself. then.Done is called once, on another
	// goroutine, with no lock held, and soon if ctx ends.
	Start(ctx context.Context, p []byte, off int64, then Completion)
}

// Near is a Source that may have content at hand.
type Near interface {
	Source
	// TryReadAt fills p if that takes no wait for anything, and says whether it did. If not, p is undefined.
	TryReadAt(p []byte, off int64) bool
}

// Completion is told the outcome of a read that was begun.
type Completion interface{ Done(err error) }

// Identified is a Source that can tell its image from others, also where they have the same name.
type Identified interface {
	Source
	// Identity is a text, of at most maxIdentity bytes, that means something to Same; "" if nothing is known.
	Identity() string
	// Same compares with the image that had this identity, in another process perhaps. The error says what differs.
	Same(identity string) error
}

// maxIdentity bounds the identity of an image, in bytes.
const maxIdentity = 4 << 10
