package lsa

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"lsad/internal/storefs"
)

// What happens when the disk of the metadata store does not take changes (a
// full file system is ballast.go's). The store tries again, with pauses, and the
// checkpoint that wants it waits. The array goes on: the log does not need the
// store, so writes and flushes succeed, and reads are answered from the cache,
// and from the store as far as it can be read. But the log behind the last
// checkpoint and the dirty part of the map grow. Once they are at their bounds
// everything that would add to them is an I/O error. The first checkpoint that
// gets through ends all of that.

// closePatience is how long an array that is closed waits for its metadata
// store, openPatience how long one that is opened does.
const (
	closePatience = 10 * time.Second
	openPatience  = 5 * time.Second
)

// applyToStore makes a batch durable in the store. It waits for room and for the
// disk, until the array is closed: then it fails.
func (a *Array) applyToStore(batch *pebble.Batch) error {
	for a.countTables() >= maxTables && !a.store.Late(errTooManyTables) {
		time.Sleep(20 * time.Millisecond)
	}
	err := a.db.Apply(batch, pebble.NoSync)
	if err == nil {
		err = a.db.Flush()
	}
	if a.store.GivenUp() {
		return errors.Join(storeGaveUp(a.store, a.opts.Meta), err)
	}
	if err == nil {
		a.storeHealed()
	}
	return err
}

// countTables says how many layers of tables wait to be compacted.
func (a *Array) countTables() int32 {
	n := a.db.Metrics().Levels[0].Sublevels
	a.storeTables.Store(n)
	return n
}

// restCompaction has a compaction of the store leave its processor to clients for a moment, unless it is behind.
func (a *Array) restCompaction() {
	if a.storeTables.Load() < maxTables/2 {
		time.Sleep(200 * time.Microsecond)
	}
}

// errTooManyTables is why a batch waits while compactions do not succeed.
var errTooManyTables = errors.New("its tables cannot be compacted")

// storeGaveUp is the error where it was given up to wait for room, or for the
// disk.
func storeGaveUp(store *storefs.FS, dir string) error {
	why := store.Why()
	if storefs.IsFull(why) {
		return fmt.Errorf("metadata store %s: %w on its file system; nothing that was acknowledged is lost, the log has it: make some room there and start again", dir, ErrNoSpace)
	}
	if p := store.Problem(); p != nil {
		why = p.Err
	}
	if errors.Is(why, context.Canceled) || why == nil {
		why = errors.New("interrupted")
	}
	return fmt.Errorf("metadata store %s: %w: %w; nothing that was acknowledged is lost, the log has it: see to its disk and start again", dir, ErrStoreFailed, why)
}

// storeProblem is the error while the metadata store does not take changes, nil
// otherwise.
func (a *Array) storeProblem() error {
	p := a.store.Problem()
	if p == nil {
		return nil
	}
	return fmt.Errorf("metadata store %s: %w since %s: %w; nothing acknowledged is lost, and it is tried again and again: see to its disk. Writes fail when the log behind it has grown to %d MiB",
		a.opts.Meta, ErrStoreFailed, p.Since.Format(time.TimeOnly), p.Err, mostLog*a.opts.CheckpointBytes>>20)
}

// storeStuck is an error if the metadata store does not take changes and the log
// behind it, or the map in memory, may not grow any more.
func (a *Array) storeStuck() error {
	if a.store.Problem() == nil || !a.storeBehind.Load() && !a.checkpointLate() {
		return nil
	}
	return a.storeProblem()
}

// noRoomFor says what it means that there was no room for a batch: segments are
// made ready by checkpoints, so none may be left for no other reason than that
// the store does not take them. Who comes next need not wait for that again.
func (a *Array) noRoomFor(b *batch, err error) error {
	if a.store.Problem() == nil || a.admit(b) != nil {
		return err
	}
	a.storeBehind.Store(true)
	if stuck := a.storeStuck(); stuck != nil {
		return stuck
	}
	return err
}

// storeFailed tells of a failed change, the first at once, others rarely.
func (a *Array) storeFailed(p *storefs.Problem) {
	wait := time.Minute
	if p.Tries == 1 {
		wait = time.Second
	}
	now, said := time.Now(), a.storeSaid.Load()
	if said != nil && now.Sub(*said) < wait || !a.storeSaid.CompareAndSwap(said, &now) {
		return
	}
	a.log.Error("the metadata store cannot be written; it is tried again, and writes fail when the log behind it is full",
		"dir", a.opts.Meta, "error", p.Err.Error(), "tries", p.Tries, "for", time.Since(p.Since).Round(time.Millisecond))
}

// storeHealed ends a failure.
func (a *Array) storeHealed() {
	a.storeBehind.Store(false)
	if p := a.store.Healed(); p != nil {
		a.log.Info("the metadata store can be written again", "dir", a.opts.Meta, "after", time.Since(p.Since).Round(time.Millisecond), "tries", p.Tries)
	}
}

// storeFatal ends the process where the store cannot go on.
func (a *Array) storeFatal(err error) {
	err = fmt.Errorf("metadata store %s: %w: %w; nothing that was acknowledged is lost: the next start reads it from the log", a.opts.Meta, ErrStoreFailed, err)
	if a.opts.Fatal != nil {
		a.opts.Fatal(err)
	}
	panic(err)
}
