package blockmap

import (
	"sync/atomic"
	"time"
)

// Unread is a page that could not be read from the store.
type Unread struct {
	Key   Key
	Err   error
	Since time.Time
}

// unread remembers the first page that could not be read, until it can be.
type unread struct{ first atomic.Pointer[Unread] }

// note takes down how a page was read.
func (u *unread) note(k Key, err error) {
	first := u.first.Load()
	switch {
	case err != nil && first == nil:
		u.first.CompareAndSwap(nil, &Unread{k, err, time.Now()})
	case err == nil && first != nil && first.Key == k:
		u.first.CompareAndSwap(first, nil)
	}
}

// Unread returns the first page that could not be read and cannot be read yet, as far as anybody tried; nil if there is
// none. What is in memory does not need the store.
func (m *Map) Unread() *Unread { return m.unread.first.Load() }

// TryUnread tries to read that page again.
func (m *Map) TryUnread() {
	if u := m.Unread(); u != nil && m.Pin(u.Key) == nil {
		m.Unpin(u.Key)
		m.unread.note(u.Key, nil) // also where it was in memory by now
	}
}
