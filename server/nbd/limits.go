package nbd

import "sync/atomic"

// budget bounds the memory of payload buffers, over all connections of a server. Nobody waits for it: a
// connection that gets none handles the request piece by piece in the buffers it already has, so that a
// client that holds memory slows no other.
type budget struct {
	limit int64 // bytes
	used  atomic.Int64
}

func (b *budget) tryAcquire(n int64) bool {
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

func (b *budget) release(n int64) { b.used.Add(-n) }
