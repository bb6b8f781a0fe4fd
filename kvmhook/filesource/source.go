// Package filesource is an image in a raw file on this machine, such as a VMM's own snapshot of its memory, mapped for
// kvmhook. It owns the mapping. What the file's file system has as holes is known to be zeros.
package filesource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lsad/kvmhook"
)

// guestPage is the smallest page of a guest, in bytes.
const guestPage = 4096

// Source is a mapped file. It implements kvmhook.Mapped and kvmhook.Identified.
type Source struct {
	file     *os.File
	mem      []byte
	identity string
}

// Open maps a file, which must not change any more.
func Open(path string) (*Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kvmhook.ErrSource, err)
	}
	s, err := mapped(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", kvmhook.ErrSource, path, err), f.Close())
	}
	return s, nil
}

func mapped(f *os.File) (*Source, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return nil, errors.New("not a file with a VM's memory: it is empty or no regular file")
	}
	if info.Size()%guestPage != 0 {
		return nil, fmt.Errorf("not a file with a VM's memory: %d bytes are not whole pages; was it cut short?", info.Size())
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map: %w", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	identity := fmt.Sprintf("file %d of device %#x, written at %s", st.Ino, st.Dev, info.ModTime().UTC().Format(time.RFC3339Nano))
	return &Source{f, mem, identity}, nil
}

// Close unmaps the file. Nobody may use the source any more.
func (s *Source) Close() error { return errors.Join(unix.Munmap(s.mem), s.file.Close()) }

// Size implements kvmhook.Source.
func (s *Source) Size() int64 { return int64(len(s.mem)) }

// Bytes implements kvmhook.Mapped.
func (s *Source) Bytes() []byte { return s.mem }

// Identity implements kvmhook.Identified.
func (s *Source) Identity() string { return s.identity }

// Same implements kvmhook.Identified.
func (s *Source) Same(identity string) error {
	if identity != s.identity {
		return fmt.Errorf("%w: %s is not the file that it was: it was %s and is %s", kvmhook.ErrSource, s.file.Name(), identity, s.identity)
	}
	return nil
}

// Zeros implements kvmhook.Source.
func (s *Source) Zeros(ctx context.Context, fn func(off, n int64)) error {
	fd, size := int(s.file.Fd()), s.Size()
	for off := int64(0); off < size && ctx.Err() == nil; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		switch {
		case err == unix.ENXIO: // nothing but a hole
			data = size
		case err != nil:
			return fmt.Errorf("%w: %s: holes: %w", kvmhook.ErrSource, s.file.Name(), err)
		}
		data = min(data, size)
		if data > off {
			fn(off, data-off)
		}
		if data == size {
			break
		}
		if off, err = unix.Seek(fd, data, unix.SEEK_HOLE); err != nil {
			return fmt.Errorf("%w: %s: holes: %w", kvmhook.ErrSource, s.file.Name(), err)
		}
	}
	return ctx.Err()
}

// ReadAt implements kvmhook.Source.
func (s *Source) ReadAt(_ context.Context, p []byte, off int64) error {
	_, err := s.file.ReadAt(p, off)
	if err != nil {
		return fmt.Errorf("%w: %w", kvmhook.ErrLost, err)
	}
	return nil
}

// Start implements kvmhook.Source.
func (s *Source) Start(ctx context.Context, p []byte, off int64, then kvmhook.Completion) {
	go func() { then.Done(s.ReadAt(ctx, p, off)) }()
}
