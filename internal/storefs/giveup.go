package storefs

import "time"

// Hurry says that from now on nothing waits for room, or for the disk to take a change, longer than d in all. What then
// still cannot be done is given up: it and all changes after it are left out, without an error, so that the store can be
// closed. Of several calls the one that gives the least time counts.
func (f *FS) Hurry(d time.Duration) {
	at := time.Now().Add(d)
	for {
		old := f.deadline.Load()
		if old != nil && old.Before(at) || f.deadline.CompareAndSwap(old, &at) {
			return
		}
	}
}

// FailWithin says that changes that have failed for d, and did not once succeed in between, are given up; 0 for never.
// Who opens a store uses it: nobody is served yet, so an error is better than waiting.
func (f *FS) FailWithin(d time.Duration) { f.atMost.Store(int64(d)) }

// GivenUp says whether it was given up to change anything: what the store then says to be durable may not be.
func (f *FS) GivenUp() bool { return f.given.Load() != nil }

// Why says for which error it was given up, nil if it was not.
func (f *FS) Why() error {
	if err := f.given.Load(); err != nil {
		return *err
	}
	return nil
}

// Late gives up if the time is up, for who waits for the store without changing anything. It says whether it is given up.
func (f *FS) Late(err error) bool {
	if f.timeIsUp() && f.given.CompareAndSwap(nil, &err) {
		close(f.over)
	}
	return f.GivenUp()
}

func (f *FS) timeIsUp() bool {
	if at := f.deadline.Load(); at != nil && time.Now().After(*at) {
		return true
	}
	p, most := f.problem.Load(), time.Duration(f.atMost.Load())
	return p != nil && most > 0 && time.Since(p.Since) > most
}

// pause waits between two tries, or gives up if it is time; err is why it has to wait.
func (f *FS) pause(d time.Duration, err error) {
	if f.Late(err) {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-f.over:
	}
}
