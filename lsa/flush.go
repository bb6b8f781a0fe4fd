package lsa

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"lsad/lsa/format"
)

// flusher makes the log durable, one round for all who ask meanwhile.
type flusher struct {
	mu      sync.Mutex
	done    sync.Cond
	running bool
	durable atomic.Uint64 // every LSN up to it is on stable storage
	rescued atomic.Uint64 // records of failed devices that were appended elsewhere
	failed  atomic.Uint64 // rounds that failed
}

// syncTo returns when every LSN up to lsn, which is committed, is durable on
// every device. A device that fails is an error, and will be until its records
// are saved, unless all of them have another copy: also where saving them was
// faster than this.
func (a *Array) syncTo(lsn uint64) error {
	rescued, failed := a.flush.rescued.Load(), a.flush.failed.Load()
	for tries := 0; a.flush.durable.Load() < lsn; {
		_, err := a.syncRound()
		if errors.Is(err, errLostAhead) {
			err = a.passOver()
		}
		if rescued != a.flush.rescued.Load() && failed != a.flush.failed.Load() {
			return errors.Join(err, errRescued)
		}
		if err != nil && !a.worthAnother(&tries) {
			return err
		}
	}
	return nil
}

// errRescued: a sync failed while a flush was under way, whoever asked for it.
var errRescued = fmt.Errorf("flush: %w: a device failed; what it had not synced was saved elsewhere meanwhile", ErrFailed)

// worthAnother says whether another round may succeed after one that failed: no
// more often than there are devices that can fail.
func (a *Array) worthAnother(tries *int) bool {
	*tries++
	return *tries <= len(a.devs()) && a.forgetCopied()
}

// syncRound syncs all that is appended, or waits for the round that is under
// way; ran tells which.
func (a *Array) syncRound() (ran bool, err error) {
	if !a.flush.begin() {
		return false, nil
	}
	defer a.flush.end()
	target, rescued := a.committed.Load(), a.flush.rescued.Load()
	if err = a.syncDevices(); err != nil {
		a.flush.failed.Add(1)
	}
	// Records that were saved meanwhile may lie, unsynced, on a device that had
	// nothing to sync when it was looked at: that takes another round.
	if err == nil && a.lostAhead() {
		err = errLostAhead
	}
	if err == nil && target > a.flush.durable.Load() && rescued == a.flush.rescued.Load() {
		a.flush.durable.Store(target)
	}
	a.counters.flushes.Add(1)
	return true, err
}

// begin begins a round, or waits until the one under way has ended and returns
// false.
func (f *flusher) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running {
		f.done.Wait()
		return false
	}
	f.running = true
	return true
}

func (f *flusher) end() {
	f.mu.Lock()
	f.running = false
	f.done.Broadcast()
	f.mu.Unlock()
}

// syncDevices syncs every device with appends that no sync has covered.
func (a *Array) syncDevices() error {
	if planted(ruleFlushSyncs) {
		return nil
	}
	var dirty []*device
	for _, d := range a.devs() {
		if d != nil && !d.writable.Load() && d.state() == format.DeviceInService {
			// Nothing is acknowledged before others remember that it failed.
			if err := a.writeState(d, format.DeviceReadOnly); err != nil {
				return fmt.Errorf("flush: %w: device %s is out of service, and that could not be recorded: %w", ErrFailed, d.dev.Name(), err)
			}
		}
		if d != nil && d.appended.Load() != d.synced.Load() {
			dirty = append(dirty, d)
		}
	}
	if planted(ruleFlushEveryDevice) && len(dirty) > 1 {
		dirty = dirty[:1]
	}
	if len(dirty) == 1 {
		return a.syncDevice(dirty[0])
	}
	errs := make([]error, len(dirty))
	var wg sync.WaitGroup
	for i, d := range dirty {
		wg.Go(func() { errs[i] = a.syncDevice(d) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// syncDevice never syncs a device again that failed to: the kernel may have
// dropped what it could not write. Its records have to be saved first.
func (a *Array) syncDevice(d *device) error {
	if !d.writable.Load() && !planted(ruleFailedSyncStays) {
		return fmt.Errorf("flush: %w: device %s has records that no sync covers; they are being saved elsewhere", ErrFailed, d.dev.Name())
	}
	if err := d.sync(); err != nil {
		if planted(ruleFailedSyncStays) {
			d.synced.Store(d.appended.Load())
			return err
		}
		a.takeOutOfService(d, err)
		return fmt.Errorf("flush: %w: %w", ErrFailed, err)
	}
	return nil
}
