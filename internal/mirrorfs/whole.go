package mirrorfs

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// extent is how much a side's store tells: the number of its manifest, and the records of it that are intact. A manifest
// ends, for Pebble, where a record is not intact, so that a damaged one passes for an older store.
type extent struct {
	manifest string // MANIFEST and a number of at least six digits
	records  int
}

// beyond says whether e tells more than o.
func (e extent) beyond(o extent) bool {
	switch {
	case len(e.manifest) != len(o.manifest):
		return len(e.manifest) > len(o.manifest)
	case e.manifest != o.manifest:
		return e.manifest > o.manifest
	}
	return e.records > o.records
}

// checkStore says whether the store of a side can be opened: whether all its tables are there and of the right size,
// and how much it tells.
func (s *side) checkStore() (extent, error) {
	e, _, err := s.readStore()
	return e, err
}

// readStore is checkStore that also names the tables of the store. It writes nothing.
func (s *side) readStore() (e extent, tables []string, err error) {
	desc, err := pebble.Peek(s.Dir, s.FS)
	if err != nil {
		return e, nil, err
	}
	if !desc.Exists {
		return e, nil, ErrNoStore
	}
	e.manifest = desc.ManifestFilename[strings.LastIndexByte(desc.ManifestFilename, '/')+1:]
	if e.records, err = s.countRecords(e.manifest); err != nil {
		return e, nil, err
	}
	db, err := pebble.Open(s.Dir, &pebble.Options{
		FS: unlocked{s.FS}, ReadOnly: true, ErrorIfNotExists: true, DisableWAL: true, Logger: quiet{},
		EventListener: &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}},
	})
	if err != nil {
		return e, nil, err
	}
	levels, err := db.SSTables()
	for _, level := range levels {
		for i := range level {
			tables = append(tables, level[i].BackingSSTNum.String()+tableSuffix)
		}
	}
	return e, tables, errors.Join(err, db.Close())
}

// unlocked leaves out the only file that Pebble makes where it only reads.
type unlocked struct{ vfs.FS }

func (unlocked) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// countRecords counts the records of a manifest up to the first that is not intact.
func (s *side) countRecords(name string) (n int, err error) {
	f, err := s.FS.Open(s.path(name))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for r := record.NewReader(f, 0); ; n++ {
		one, err := r.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, one)
		}
		if err != nil {
			return n, nil
		}
	}
}

// mostWhole is which of two sides has the store that tells the most: after a loss of power what each has is whole up to
// something that was synced on both, and more is better than less.
func mostWhole(sides []*side) (int, error) {
	a, errA := sides[0].checkStore()
	b, errB := sides[1].checkStore()
	switch {
	case errA != nil && errB != nil:
		return 0, fmt.Errorf("metadata directories %s and %s: both are damaged: %w", sides[0].Dir, sides[1].Dir, errA)
	case errA != nil || errB == nil && b.beyond(a):
		return 1, nil
	}
	return 0, nil
}

// quiet is a logger for stores that are only looked at.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(f string, args ...any) {
	panic("metadata store: " + fmt.Sprintf(f, args...))
}
