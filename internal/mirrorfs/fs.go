package mirrorfs

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// FS is the sides as one file system. Names are those of the first side, whether it is in service or not.
type FS struct {
	sides []*side
	root  string
	id    [16]byte
	log   *slog.Logger

	live   atomic.Uint32 // a bit for each side in service; never zero
	broken atomic.Bool   // something failed on all sides: they may differ

	mu         sync.Mutex
	generation uint64
	problems   []problem
	onChange   func(uint64)
	look       func(Side) error

	writing sync.Map // names of files that are being written
}

var _ vfs.FS = (*FS)(nil)

// Root is the store's directory in the FS.
func (m *FS) Root() string { return m.root }

func (m *FS) isLive(i int) bool { return m.live.Load()&(1<<i) != 0 }
func (m *FS) alone() bool       { return m.live.Load() != 3 }

// last says whether no other side can stand in for side i. One that was just dropped is not the last.
func (m *FS) last(i int) bool { return m.live.Load() == 1<<i }

// first is the side to read from.
func (m *FS) first() int {
	if m.isLive(0) {
		return 0
	}
	return 1
}

// on gives the path that a name has on a side. Names beside the store, such as ROOT.reserve, lie in the directory, which
// may be a mount point; names above it are the directory.
func (m *FS) on(i int, name string) string {
	s := m.sides[i]
	rest, ok := strings.CutPrefix(name, m.root)
	switch {
	case !ok, rest == "":
		return s.Dir
	case rest[0] == '.':
		return s.path(ownPrefix + rest[1:])
	}
	return s.path(strings.TrimLeft(rest, "/"))
}

// all runs op on each side in service, and settles what comes of it.
func (m *FS) all(what, name string, op func(s *side, i int, path string) error) error {
	var errs [2]error
	live := m.live.Load()
	for i := range m.sides {
		if live&(1<<i) != 0 {
			errs[i] = op(m.sides[i], i, m.on(i, name))
		}
	}
	return m.settle(what, name, live, errs)
}

// read runs op on the first side in service, and on the other if that fails.
func (m *FS) read(what, name string, op func(s *side, i int, path string) error) error {
	i := m.first()
	err := op(m.sides[i], i, m.on(i, name))
	if err == nil || m.last(i) {
		return err
	}
	return m.readOther(what, name, i, err, op)
}

// readOther is a read that failed on side i. If the other side gives what that one does not, it failed.
func (m *FS) readOther(what, name string, i int, failure error, op func(s *side, i int, path string) error) error {
	j := 1 - i
	if err := op(m.sides[j], j, m.on(j, name)); err != nil {
		return failure
	}
	return m.fail(i, what, name, failure)
}

func (m *FS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f := &file{fs: m, name: name, table: isTable(name), writes: true}
	m.writing.Store(name, f)
	err := m.all("create", name, func(s *side, i int, path string) (err error) {
		return f.take(i, func() (vfs.File, error) { return s.FS.Create(path, category) })
	})
	return f.opened(err)
}

func (m *FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f := &file{fs: m, name: name, table: isTable(name), opts: opts}
	err := m.read("open", name, func(s *side, i int, path string) error {
		return f.take(i, func() (vfs.File, error) { return s.FS.Open(path, opts...) })
	})
	return f.opened(err)
}

func (m *FS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f := &file{fs: m, name: name, table: isTable(name), opts: opts, writes: true}
	m.writing.Store(name, f)
	err := m.all("open", name, func(s *side, i int, path string) error {
		return f.take(i, func() (vfs.File, error) { return s.FS.OpenReadWrite(path, category, opts...) })
	})
	return f.opened(err)
}

func (m *FS) OpenDir(name string) (vfs.File, error) {
	f := &file{fs: m, name: name, writes: true}
	err := m.all("open directory", name, func(s *side, i int, path string) error {
		return f.take(i, func() (vfs.File, error) { return s.FS.OpenDir(path) })
	})
	return f.opened(err)
}

// Link leaves nothing if one side is full.
func (m *FS) Link(oldname, newname string) error {
	return m.allOrNone("link", newname,
		func(s *side, i int, path string) error { return s.FS.Link(m.on(i, oldname), path) },
		func(s *side, i int, path string) error { return s.FS.Remove(path) })
}

// Rename leaves the old name if one side is full.
func (m *FS) Rename(oldname, newname string) error {
	op := func(s *side, i int, path string) error { return s.FS.Rename(m.on(i, oldname), path) }
	if _, err := m.Stat(newname); err == nil {
		// What it replaces could not be brought back: the side that is full gives way.
		return m.allOrNone("rename", newname, op, func(*side, int, string) error { return fs.ErrExist })
	}
	return m.allOrNone("rename", newname, op,
		func(s *side, i int, path string) error { return s.FS.Rename(path, m.on(i, oldname)) })
}

// allOrNone is all for what cannot be tried again after it was done on one side only.
func (m *FS) allOrNone(what, name string, op, undo func(s *side, i int, path string) error) error {
	var errs [2]error
	live := m.live.Load()
	for i, s := range m.sides {
		if live&(1<<i) != 0 {
			errs[i] = op(s, i, m.on(i, name))
		}
	}
	if live == 3 && (errs[0] == nil) != (errs[1] == nil) {
		ok, bad := 0, 1
		if errs[0] != nil {
			ok, bad = 1, 0
		}
		if outcomeOf(errs[bad]) == full && undo(m.sides[ok], ok, m.on(ok, name)) != nil {
			return m.fail(bad, what, name, errs[bad])
		}
	}
	return m.settle(what, name, live, errs)
}

// Remove finds nothing only if no side has the name.
func (m *FS) Remove(name string) error {
	live, errs := m.remove(name, vfs.FS.Remove)
	if live == 3 && (errs[0] == nil) != (errs[1] == nil) {
		for i, err := range errs {
			if errors.Is(err, fs.ErrNotExist) {
				errs[i] = nil // removed at the first try, when the other was full
			}
		}
	}
	return m.settle("remove", name, live, errs)
}

func (m *FS) RemoveAll(name string) error {
	live, errs := m.remove(name, vfs.FS.RemoveAll)
	return m.settle("remove", name, live, errs)
}

// remove removes from the side that is read from last: who looks for the name meanwhile, and does not find it there,
// does not find it on the other side either, and takes no side for one that lost a file.
func (m *FS) remove(name string, op func(vfs.FS, string) error) (live uint32, errs [2]error) {
	live = m.live.Load()
	for i := len(m.sides) - 1; i >= 0; i-- {
		if live&(1<<i) != 0 {
			errs[i] = op(m.sides[i].FS, m.on(i, name))
		}
	}
	return live, errs
}

// ReuseForWrite makes a new file: reusing one is of use for logs only, which the store does not have.
func (m *FS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := m.Remove(oldname); err != nil {
		return nil, err
	}
	return m.Create(newname, category)
}

func (m *FS) MkdirAll(dir string, perm os.FileMode) error {
	return m.all("make directory", dir, func(s *side, _ int, path string) error { return s.FS.MkdirAll(path, perm) })
}

// locks are what Lock gives.
type locks []io.Closer

func (l locks) Close() error {
	var errs []error
	for _, c := range l {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (m *FS) Lock(name string) (io.Closer, error) {
	var held locks
	var taken error
	err := m.all("lock", name, func(s *side, _ int, path string) error {
		c, err := s.FS.Lock(path)
		if err == nil {
			held = append(held, c)
		} else if inUse(err) {
			taken, err = err, nil // no failure of the side
		}
		return err
	})
	if err = errors.Join(taken, err); err != nil {
		return nil, errors.Join(err, held.Close())
	}
	return held, nil
}

func (m *FS) List(dir string) (list []string, err error) {
	err = m.read("list", dir, func(s *side, _ int, path string) error {
		list, err = s.FS.List(path)
		return err
	})
	if dir != m.root {
		return list, err
	}
	shown := list[:0]
	for _, name := range list {
		if !strings.HasPrefix(name, ownPrefix) {
			shown = append(shown, name)
		}
	}
	return shown, err
}

func (m *FS) Stat(name string) (info vfs.FileInfo, err error) {
	err = m.read("stat", name, func(s *side, _ int, path string) error {
		info, err = s.FS.Stat(path)
		return err
	})
	return info, err
}

func (m *FS) PathBase(path string) string    { return m.sides[0].FS.PathBase(path) }
func (m *FS) PathJoin(elem ...string) string { return m.sides[0].FS.PathJoin(elem...) }
func (m *FS) PathDir(path string) string     { return m.sides[0].FS.PathDir(path) }

// GetDiskUsage tells of the side in service that has the least room.
func (m *FS) GetDiskUsage(name string) (least vfs.DiskUsage, err error) {
	none := true
	for i, s := range m.sides {
		if !m.isLive(i) {
			continue
		}
		u, e := s.FS.GetDiskUsage(m.on(i, name))
		if e != nil {
			err = e
		} else if none || u.AvailBytes < least.AvailBytes {
			least, none = u, false
		}
	}
	return least, err
}

// Unwrap implements vfs.FS: there is no one file system below.
func (m *FS) Unwrap() vfs.FS { return nil }
