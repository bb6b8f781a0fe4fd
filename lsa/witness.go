package lsa

import (
	"errors"
	"fmt"
)

// witness writes, on one device, the number of a checkpoint that is durable,
// before anything relies on it: segments that it frees may be written again, so a
// store without it, put back from a copy or cut short by damage, must not be
// taken for the array's. Devices take turns. No flush is under way meanwhile:
// one must not pass over a device that fails here. checkpoint.mu is held.
func (a *Array) witness(number uint64) error {
	a.checkpoint.number = number
	for !a.flush.begin() {
	}
	defer a.flush.end()
	s := &a.super
	devs := a.devs()
	var errs []error
	for i := range devs {
		d := devs[(number+uint64(i))%uint64(len(devs))]
		if d == nil || !d.writable.Load() {
			continue
		}
		s.mu.Lock()
		s.sequence++
		s.checkpoint = number
		err := writeSuperblock(d.dev, s.superblock(d.slot), d.syncOnce)
		s.mu.Unlock()
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		a.takeOutOfService(d, err)
	}
	return fmt.Errorf("no device takes note of the checkpoint: %w", errors.Join(append(errs, ErrFailed)...))
}
