package lsa

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// RemoveOptions of RemoveDevice.
type RemoveOptions struct {
	// Force removes a device although blocks on it cannot be read, and have no
	// other copy: they are read errors from then on.
	Force bool
}

// removal is what others see of a device on its way out.
type removal struct {
	slot        atomic.Int64 // plus one; 0: none
	blocks, all atomic.Int64 // moved, and to move
}

// RemovalProgress says how far the removal of a device is; slot is -1 if none
// is under way. done and total are blocks.
func (a *Array) RemovalProgress() (slot int, done, total int64) {
	return int(a.removal.slot.Load()) - 1, a.removal.blocks.Load(), a.removal.all.Load()
}

// RemoveDevice moves all that a device holds to the others, and takes it out of
// the array. It returns the device, which nothing uses any more. Cancelled, or
// where not all can be moved, the device stays as it was, and nothing is lost.
func (a *Array) RemoveDevice(ctx context.Context, slot int, o RemoveOptions) (blockdev.Device, error) {
	if !a.membership.TryLock() {
		return nil, fmt.Errorf("remove device: %w: another is being added or removed", ErrInUse)
	}
	defer a.membership.Unlock()
	if slot < 0 || slot >= len(a.devs()) || a.devs()[slot] == nil {
		return nil, fmt.Errorf("remove device of slot %d: %w", slot, ErrNotFound)
	}
	d := a.devs()[slot]
	err := a.beginRemoval(d)
	if err == nil {
		a.removal.slot.Store(int64(slot) + 1)
		defer a.removal.slot.Store(0)
		if err = a.evacuate(ctx, d, o); err == nil {
			err = a.dropDevice(ctx, d, o)
		}
		if err != nil {
			a.endRemoval(d)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("remove device %s: %w", d.dev.Name(), err)
	}
	a.log.Info("device removed", "device", d.dev.Name(), "slot", slot)
	return d.dev, nil
}

// beginRemoval takes no more writes to the device, if the others have the room.
func (a *Array) beginRemoval(d *device) error {
	if a.readOnly {
		return fmt.Errorf("array opened degraded: %w", ErrReadOnly)
	}
	a.append.mu.Lock()
	defer a.append.mu.Unlock()
	d.draining.Store(true)
	left, room := a.writableDevices(), a.capacity()
	var err error
	switch used := a.used.Load() + a.pending.Load(); {
	case left == 0:
		err = fmt.Errorf("%w: it is the last that takes writes", ErrInvalid)
	case left == 1 && a.twoCopies.Load():
		err = fmt.Errorf("%w: there are volumes with two copies, and one device would be left", ErrInvalid)
	case used > room:
		err = fmt.Errorf("%w: %d blocks are in use, the other devices can hold %d; add a device first, or delete something", ErrNoSpace, used, room)
	}
	if err != nil {
		d.draining.Store(false)
		return err
	}
	a.limit.Store(room)
	for c := range d.streams {
		if s := &d.streams[c]; s.open {
			a.seal(d, s)
		}
	}
	if a.append.current == d {
		a.append.current = nil
	}
	a.append.pair = [2]*device{}
	return nil
}

func (a *Array) endRemoval(d *device) {
	a.append.mu.Lock()
	d.draining.Store(false)
	a.updateLimit()
	a.append.mu.Unlock()
	kick(a.work.checkpoint)
}

// evacuate moves what is live on the device, in passes: what collections of
// others hold at one time is there at the next.
func (a *Array) evacuate(ctx context.Context, d *device, o RemoveOptions) error {
	if err := a.settled(ctx); err != nil {
		return err
	}
	kick(a.work.sync) // what it took is safe then, and no room need be kept for it
	a.removal.blocks.Store(0)
	a.removal.all.Store(d.live.Load())
	for pass := 0; d.live.Load() > 0 && !planted(ruleEvacuateFirst); pass++ {
		moved, damaged, busy, err := a.evacuatePass(ctx, d)
		switch {
		case err != nil:
			return err
		case moved > 0 || busy:
		case damaged > 0 && o.Force:
			a.log.Error("blocks that cannot be read are given up with their device", "device", d.dev.Name(), "blocks", d.live.Load())
			return nil
		case damaged > 0:
			return fmt.Errorf("%w: %d blocks on it cannot be read and have no other copy; delete what they belong to, or force it", ErrDamaged, d.live.Load())
		case pass > 1000:
			return fmt.Errorf("%w: %d blocks do not move", ErrFailed, d.live.Load())
		}
		if busy {
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// settled returns when every change that has its place already is in the map.
func (a *Array) settled(ctx context.Context) error {
	a.append.mu.Lock()
	last := a.append.nextLSN - 1
	a.append.mu.Unlock()
	for a.committed.Load() < last {
		if err := errors.Join(a.failed(), sleep(ctx, time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// evacuatePass moves each segment once. damaged counts the segments with blocks
// that did not move, busy says that others hold some.
func (a *Array) evacuatePass(ctx context.Context, d *device) (moved, damaged int, busy bool, err error) {
	for seg := range d.segs {
		a.append.mu.Lock()
		s := &d.segs[seg]
		state, live, collecting := s.state, s.live.Load(), s.collecting
		a.append.mu.Unlock()
		if live == 0 || state != segSealed {
			continue
		}
		if collecting {
			busy = true
			continue
		}
		n, err := a.Collect(ctx, int(d.slot), uint32(seg), nil)
		switch stopped := errors.Join(ctx.Err(), a.work.ctx.Err()); {
		case stopped != nil:
			return moved, damaged, busy, stopped
		case errors.Is(err, ErrInvalid):
			busy = true
			continue
		case errors.Is(err, errUnreadable):
			a.log.Error("a segment of a device that is to be removed cannot be read", "blocks", live, "error", err)
		case err != nil:
			return moved, damaged, busy, err
		}
		moved += n
		a.removal.blocks.Add(int64(n))
		if s.live.Load() > 0 {
			damaged++
		}
	}
	return moved, damaged, busy, nil
}

// dropDevice takes an empty device out. Nothing durable may refer to it before
// the others forget it: neither the map nor the log behind the checkpoint.
func (a *Array) dropDevice(ctx context.Context, d *device, o RemoveOptions) error {
	for d.writable.Load() && d.appended.Load() != d.synced.Load() {
		if _, err := a.syncRound(); err != nil && !errors.Is(err, errLostAhead) {
			return err
		}
	}
	d.mu.Lock()
	unsaved := len(d.unsynced)
	d.mu.Unlock()
	if unsaved > 0 {
		return fmt.Errorf("%w: %d records on it that were never synced are not saved elsewhere yet", ErrFailed, unsaved)
	}
	if !planted(ruleDropBehindCheckpoint) {
		if err := a.Checkpoint(ctx); err != nil {
			return err
		}
	}
	a.checkpoint.mu.Lock()
	defer a.checkpoint.mu.Unlock()
	a.super.mu.Lock()
	before := a.super.rows[d.slot].State
	a.super.rows[d.slot].State = format.DeviceGone
	a.super.mu.Unlock()
	a.setDevice(int(d.slot), nil)
	if err := a.insistOnSuperblocks(); err != nil {
		a.super.mu.Lock()
		a.super.rows[d.slot].State = before
		a.super.mu.Unlock()
		a.setDevice(int(d.slot), d)
		return err
	}
	a.append.mu.Lock()
	a.updateLimit()
	a.append.mu.Unlock()
	a.readers.quiesce()
	a.tellRemoved()
	for d.busy.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
	if d.writable.Load() {
		if err := wipeSuperblocks(d.dev); err != nil {
			a.log.Warn("the device that was removed still carries the array's superblock", "device", d.dev.Name(), "error", err)
		}
	}
	return nil
}
