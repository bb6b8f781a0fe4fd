// Package loglimit keeps what can happen thousands of times a second from
// filling the log. It owns nothing but counters, takes no locks, and imports
// nothing of lsad.
package loglimit

import (
	"sync/atomic"
	"time"
)

// Limiter lets one event a second pass and counts the others. Its zero value
// is ready, and any number of goroutines may use it.
type Limiter struct {
	next       atomic.Int64 // not before this time, in ns
	suppressed atomic.Int64
}

// Allow says whether an event at the time now is to be logged, and how many
// were not since the last one that was.
func (l *Limiter) Allow(now time.Time) (suppressed int64, ok bool) {
	at, next := now.UnixNano(), l.next.Load()
	if at < next || !l.next.CompareAndSwap(next, at+int64(time.Second)) {
		l.suppressed.Add(1)
		return 0, false
	}
	return l.suppressed.Swap(0), true
}
