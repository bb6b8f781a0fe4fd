//go:build linux

package blockdev

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FileOptions say how to open a file. The zero value opens it for reading and
// writing, whatever its size.
type FileOptions struct {
	// ReadOnly refuses all changes. The lock is exclusive all the same: who
	// reads wants to know that nobody writes.
	ReadOnly bool
	// MinSize is how long the device must at least be, in bytes.
	MinSize int64
}

// OpenFile opens a regular file or a raw block device and locks it for this
// process. The error wraps ErrLocked if another one has it open, and
// ErrTruncated if it is shorter than MinSize.
func OpenFile(path string, opts FileOptions) (Device, error) {
	var before unix.Stat_t
	if err := unix.Stat(path, &before); err != nil {
		return nil, fmt.Errorf("open device %s: %w", path, err)
	}
	flags := unix.O_CLOEXEC | unix.O_RDWR
	if opts.ReadOnly {
		flags = unix.O_CLOEXEC | unix.O_RDONLY
	}
	switch before.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFBLK:
		flags |= unix.O_EXCL // keeps out mounts, swap, md and who else asks
	default:
		return nil, fmt.Errorf("open device %s: it is neither a regular file nor a block device", path)
	}
	fd, err := openRetry(path, flags)
	if errors.Is(err, unix.EBUSY) {
		err = ErrLocked
	}
	if err != nil {
		return nil, fmt.Errorf("open device %s: %w", path, err)
	}
	f := &File{name: path, fd: fd, readOnly: opts.ReadOnly}
	if err := f.prepare(&before, opts.MinSize); err != nil {
		_ = unix.Close(fd) // nothing was written
		return nil, fmt.Errorf("open device %s: %w", path, err)
	}
	return f, nil
}

func openRetry(path string, flags int) (fd int, err error) {
	err = untilDone(func() error {
		fd, err = unix.Open(path, flags, 0)
		return err
	})
	return fd, err
}

// prepare locks the open file and finds its size.
func (f *File) prepare(before *unix.Stat_t, minSize int64) error {
	err := untilDone(func() error { return unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return ErrLocked
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return err
	}
	if st.Dev != before.Dev || st.Ino != before.Ino {
		return errors.New("it was replaced while it was being opened")
	}
	f.block = st.Mode&unix.S_IFMT == unix.S_IFBLK
	// The size of a block device is not in its inode; its end tells.
	if f.size, err = unix.Seek(f.fd, 0, io.SeekEnd); err != nil {
		return fmt.Errorf("find the size: %w", err)
	}
	if f.size < minSize {
		return fmt.Errorf("%w: it has %d bytes and needs %d", ErrTruncated, f.size, minSize)
	}
	return nil
}

// CreateFile makes a sparse file of size bytes that only its owner may use,
// and makes it durable together with its name. An existing file is never touched:
// the error then wraps fs.ErrExist.
func CreateFile(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("create device: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("create device %s: %w", path, errors.Join(err, os.Remove(path)))
		}
	}()
	err = f.Truncate(size)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
