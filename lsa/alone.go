package lsa

import "sync/atomic"

// A record that asks for two copies may get one: where it makes room, and one
// device alone has any; or where a device failed to take it. Blocks get their
// second copy from a rebuild. What else such a record says, that a volume was
// made or a range trimmed, would be lost with the one device, although it was
// acknowledged and flushed. So it is not durable before a checkpoint has it:
// the metadata store is not on that device.

// noteAlone remembers that a record with that LSN has one copy of two. With one
// device in service there is nothing to be done about it. One that is being
// removed counts: it may stay.
func (a *Array) noteAlone(lsn uint64) {
	inService := 0
	for _, d := range a.devs() {
		if d != nil && d.writable.Load() {
			inService++
		}
	}
	if inService > 1 {
		raise(&a.aloneUpTo, lsn)
	}
}

// raise stores x if it is more.
func raise(to *atomic.Uint64, x uint64) {
	for {
		was := to.Load()
		if was >= x || to.CompareAndSwap(was, x) {
			return
		}
	}
}
