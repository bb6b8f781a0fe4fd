package lsa

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/storefs"
)

// ballast is a file beside the metadata store that holds room for it. When the
// file system there is full, the ballast is let go, so that checkpoints, and
// with them trims and collections, go on and make room; writes that need more
// are refused until the ballast could be taken again. Should another program
// take all of that room, the store waits for some.
type ballast struct {
	fs   vfs.FS
	path string
	size int64
	full atomic.Bool
	log  *slog.Logger
}

// minBallast in bytes.
const minBallast = 16 << 20

// newBallast makes the ballast for a cache of map pages of so many bytes: half
// of it is more than all of it dirty takes in the store, encoded and compacted.
func newBallast(fs vfs.FS, meta string, mapCache int64, log *slog.Logger) *ballast {
	return &ballast{fs: fs, path: meta + ".reserve", size: max(minBallast, mapCache/2), log: log}
}

// wrap returns the file system for the metadata store.
func (b *ballast) wrap(o storefs.Options) *storefs.FS {
	o.Full = b.release
	return storefs.New(b.fs, o)
}

// release lets the room go; the store then tries again what failed, and goes
// on trying.
func (b *ballast) release() {
	if b.full.Swap(true) {
		return
	}
	err := b.fs.Remove(b.path)
	b.log.Error("the file system of the metadata store is full; writes are refused until there is room", "released", b.size, "error", err)
}

// take allocates the room, if there is any.
func (b *ballast) take() error {
	f, err := b.fs.Create(b.path, vfs.WriteCategoryUnspecified)
	if err == nil {
		err = errors.Join(f.Preallocate(0, b.size), f.Close())
	}
	if err != nil {
		b.full.Store(true)
		_ = b.fs.Remove(b.path)
		return fmt.Errorf("reserve %d bytes at %s: %w", b.size, b.path, err)
	}
	if b.full.Swap(false) {
		b.log.Info("there is room again for the metadata store", "reserved", b.size)
	}
	return nil
}

// low says that with need bytes taken too little room is left for the metadata store:
// time to take no more for segments. Where the file system cannot tell, the
// ballast alone has to do.
func (b *ballast) low(need int64) bool {
	usage, err := b.fs.GetDiskUsage(b.path)
	return b.full.Load() || err == nil && int64(usage.AvailBytes) < b.size/4+need
}
