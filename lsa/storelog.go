package lsa

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"lsad/internal/storefs"
	"lsad/lsa/blockmap"
)

// pebbleLogger passes on what goes wrong; the rest is noise to an operator.
type pebbleLogger struct {
	log   *slog.Logger
	store *storefs.FS // nil if it is only read
	fatal func(error) // nil panics
}

func (l pebbleLogger) Infof(f string, args ...any) {
	l.log.Debug("metadata store", "event", fmt.Sprintf(f, args...))
}
func (l pebbleLogger) Errorf(f string, args ...any) {
	l.log.Error("metadata store", "event", fmt.Sprintf(f, args...))
}

// Fatalf returns where nothing is changed on disk any more: the store reports
// the failure to its caller then, and can be closed.
func (l pebbleLogger) Fatalf(f string, args ...any) {
	if l.store != nil && l.store.GivenUp() {
		l.Infof(f, args...)
		return
	}
	if l.fatal != nil {
		l.fatal(fmt.Errorf(f, args...))
	}
	panic("metadata store: " + fmt.Sprintf(f, args...))
}

// backgroundPause is how long the store waits after a flush or a compaction that
// failed: it tries again at once, for ever.
const backgroundPause = 100 * time.Millisecond

// backgroundError takes note of a flush or a compaction that failed. The store
// holds its lock meanwhile, which changes need and reads do not.
func backgroundError(store *storefs.FS, log *slog.Logger, err error) {
	switch {
	case storefs.IsFull(err) || store != nil && store.GivenUp(): // that is told once
		return
	case store == nil || pebble.IsCorruptionError(err): // the disk is not at fault
		log.Error("metadata store", "error", blockmap.StoreError(err).Error()) // of which %+v is a page
	case !storefs.IsNoted(err): // a read: changes are noted by the file system
		store.Failed(err)
	}
	time.Sleep(backgroundPause)
}
