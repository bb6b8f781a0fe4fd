package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names in the data directory.
const (
	lockFile   = "lock"
	metaDir    = "meta"
	memberFile = "array.toml"
)

// errLocked: another process has the data directory.
var errLocked = errors.New("in use by another lsad")

// dataDir is a data directory that this process has locked.
type dataDir struct {
	path string
	made bool // by this start
	lock *os.File
}

// openDataDir locks the directory. With create it is made if it is missing. What was made is
// taken back by made.
func openDataDir(path string, create bool, made *undo) (d *dataDir, err error) {
	d = &dataDir{path: path}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && create:
		if d.made, err = true, makeDir(path, made); err != nil {
			return nil, fmt.Errorf("data directory: %w; name one with --dir that can be made and written to", err)
		}
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("data directory %s does not exist; name another with --dir", path)
	case err != nil:
		return nil, fmt.Errorf("data directory: %w; name one with --dir that can be made and written to", err)
	case !info.IsDir():
		return nil, fmt.Errorf("data directory %s: it is not a directory; name another with --dir", path)
	}
	if err := d.takeLock(made); err != nil {
		return nil, err
	}
	return d, nil
}

// makeDir makes a directory and those above it, and remembers to remove them.
func makeDir(path string, made *undo) error {
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if parent := filepath.Dir(path); parent != path {
		if err := makeDir(parent, made); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	made.add(func() error { return os.Remove(path) })
	return nil
}

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

func (d *dataDir) takeLock(made *undo) error {
	path := d.file(lockFile)
	_, before := os.Lstat(path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("data directory %s is not writable: %w; name another with --dir, or be the user that it belongs to", d.path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("data directory %s is %w%s; stop it first, or name another directory with --dir", d.path, errLocked, holder(f))
		}
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if errors.Is(before, fs.ErrNotExist) {
		made.add(func() error { return os.Remove(path) })
	}
	d.lock = f
	return d.sign()
}

// sign leaves the process id for who finds the directory locked.
func (d *dataDir) sign() error {
	if err := d.lock.Truncate(0); err != nil {
		return fmt.Errorf("lock %s: %w", d.lock.Name(), err)
	}
	if _, err := d.lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("lock %s: %w", d.lock.Name(), err)
	}
	return nil
}

// holder says who has the lock, as far as the file tells.
func holder(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, 32))
	pid, err2 := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || err2 != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

// close gives the lock back.
func (d *dataDir) close() error { return d.lock.Close() }

// share makes the directory private to its owner, or lets a group (unless it is negative) into it.
func (d *dataDir) share(gid int) error {
	mode := fs.FileMode(0o700)
	if gid >= 0 {
		mode = 0o750
		if err := os.Chown(d.path, -1, gid); err != nil {
			return fmt.Errorf("give data directory %s to the group: %w", d.path, err)
		}
	}
	info, err := os.Stat(d.path)
	if err != nil || info.Mode().Perm() == mode {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return nil // somebody else's directory that lets us in: its mode is theirs to choose
	}
	return os.Chmod(d.path, mode)
}

// lookupGroup is the id of a group, given by name or number, or -1 for none.
func lookupGroup(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	id := name
	if _, err := strconv.Atoi(name); err != nil {
		g, err := user.LookupGroup(name)
		if err != nil {
			return -1, fmt.Errorf("group %q: there is no such group on this machine", name)
		}
		id = g.Gid
	}
	gid, err := strconv.Atoi(id)
	if err != nil || gid < 0 {
		return -1, fmt.Errorf("group %q: not a group id", name)
	}
	return gid, nil
}
