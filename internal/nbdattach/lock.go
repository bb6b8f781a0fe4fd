package nbdattach

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Who watches a device holds a lock, one of the kind that belongs to an open file and that can be asked for without
// being taken: to look whether a device is watched must not be in the way of who is about to watch it.

// lockPath is the file that is locked.
func lockPath(index int) string { return "/run/lsad-" + filepath.Base(path(index)) + ".lock" }

// watch takes the lock of a device.
func watch(index int) (*os.File, error) {
	f, err := lockFile(lockPath(index))
	if errors.Is(err, ErrWatched) {
		err = fmt.Errorf("%s is %w", path(index), ErrWatched)
	}
	return f, err
}

// watchNew takes the lock of a device that was made just now. Who watched an earlier device of that number may take a
// moment to notice that it is gone.
func watchNew(index int) (f *os.File, err error) {
	for until := time.Now().Add(4 * checkEvery); ; time.Sleep(10 * time.Millisecond) {
		if f, err = watch(index); !errors.Is(err, ErrWatched) || time.Now().After(until) {
			return f, err
		}
	}
}

// watched says whether somebody holds the lock.
func watched(index int) bool { return fileLocked(lockPath(index)) }

func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = ErrWatched
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
	}
	return f, nil
}

func fileLocked(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l) == nil && l.Type != unix.F_UNLCK
}
