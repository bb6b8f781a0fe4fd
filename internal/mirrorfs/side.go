package mirrorfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Side is a directory that holds the store.
type Side struct {
	FS  vfs.FS
	Dir string
}

// side is a Side in use.
type side struct {
	Side
	lock   io.Closer
	record vfs.File // the state file
	state  *state   // the last written or read
	made   bool     // the directory, by take
}

const (
	lockFile = "mirror.lock"
	// ownPrefix is how names begin that the store does not see.
	ownPrefix = "mirror."
)

// ErrInUse: another process has the directory.
var ErrInUse = errors.New("in use by another process")

func (s *side) path(name string) string { return s.FS.PathJoin(s.Dir, name) }

func (s *side) syncDir() error {
	d, err := s.FS.OpenDir(s.Dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// found is what a side was found to be.
type found struct {
	dir      string
	err      error // it cannot be used
	state    *state
	badState bool // there is a state file, but no record in it is intact
	store    bool // there are files of a store
}

func (f *found) empty() bool { return f.err == nil && f.state == nil && !f.badState && !f.store }
func (f *found) plain() bool { return f.err == nil && f.state == nil && !f.badState && f.store }

// counts says that the side's content is that of some generation.
func (f *found) counts() bool { return f.err == nil && f.state != nil && !f.state.rebuilding }

// take makes a missing directory, locks the side, and looks at it. Only ErrInUse is an error to the caller.
func (s *side) take() (f found, err error) {
	f.dir = s.Dir
	if f.err = s.makeDir(); f.err != nil {
		return f, nil
	}
	if s.lock, f.err = s.FS.Lock(s.path(lockFile)); f.err != nil {
		s.lock = nil
		if inUse(f.err) {
			return f, fmt.Errorf("metadata directory %s: %w", s.Dir, ErrInUse)
		}
		return f, nil
	}
	f.look(s)
	s.state = f.state
	return f, nil
}

// makeDir makes the directory if only it is missing, and not what it should lie in: that is a file
// system that is not mounted.
func (s *side) makeDir() error {
	if _, err := s.FS.Stat(s.Dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := s.FS.PathDir(s.Dir)
	if _, err := s.FS.Stat(parent); err != nil {
		return err
	}
	if err := s.FS.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	s.made = true
	d, err := s.FS.OpenDir(parent)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// takeBack removes the directory that take made, if nothing came into it.
func (s *side) takeBack() {
	if !s.made {
		return
	}
	if all, err := s.FS.List(s.Dir); err != nil || len(all) > 1 || len(all) == 1 && all[0] != lockFile {
		return
	}
	// What is left is an empty directory, which is as good as none: errors are of no consequence.
	_ = s.FS.Remove(s.path(lockFile))
	_ = s.FS.Remove(s.Dir)
}

// look fills in what is there; it writes nothing.
func (f *found) look(s *side) {
	files, err := s.files()
	if err != nil {
		f.err = err
		return
	}
	f.store = len(files) > 0
	record, err := s.FS.Open(s.path(stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		f.err = err
		return
	}
	defer record.Close()
	f.state, err = readState(record)
	if errors.Is(err, errBadState) {
		f.badState = true
	} else if err != nil {
		f.err = err
	}
}

// files are the names of the store's files.
func (s *side) files() ([]string, error) {
	all, err := s.FS.List(s.Dir)
	if err != nil {
		return nil, err
	}
	return storeFiles(all), nil
}

// pebbleLock is the store's own lock file, which is empty.
const pebbleLock = "LOCK"

func storeFiles(all []string) []string {
	var list []string
	for _, name := range all {
		if !strings.HasPrefix(name, ownPrefix) && name != pebbleLock {
			list = append(list, name)
		}
	}
	return list
}

// release gives up what take took.
func (s *side) release() error {
	var errs []error
	if s.record != nil {
		errs = append(errs, s.record.Close())
		s.record = nil
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// inUse tells a lock that another process has from one that cannot be taken at all.
func inUse(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || !isErrno(err)
}

func isErrno(err error) bool {
	var n syscall.Errno
	return errors.As(err, &n) || errors.Is(err, fs.ErrNotExist)
}
