package storefs

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options of New.
type Options struct {
	// Full is told that something found no room, before it is tried again. It may be called from many goroutines at
	// once; nil for nothing.
	Full func()
	// Pause is the time between two tries, 0 for 100 ms.
	Pause time.Duration
	// Patience is how long what may fail is tried, 0 for a second.
	Patience time.Duration
	// Failed is told of each change that failed for another reason than want of room. Like Full it may be called from
	// many goroutines; nil for nothing.
	Failed func(*Problem)
	// Rest is called again and again by a compaction that writes, and may take a moment, until Hurry; nil for nothing.
	Rest func()
	// Fatal is told what the store cannot go on after. It does not return; nil panics.
	Fatal func(error)
}

const (
	defaultPause    = 100 * time.Millisecond
	defaultPatience = time.Second
)

// FS is a file system for a store.
type FS struct {
	vfs.FS
	o        Options
	deadline atomic.Pointer[time.Time] // nil until Hurry
	given    atomic.Pointer[error]     // why it was given up
	over     chan struct{}             // closed when given is set
	problem  atomic.Pointer[Problem]   // nil while all is well
	atMost   atomic.Int64              // see FailWithin
	moved    atomic.Bool               // a marker, since the directory was synced
}

var _ vfs.FS = (*FS)(nil)

// New returns inner for a store.
func New(inner vfs.FS, o Options) *FS {
	if o.Full == nil {
		o.Full = func() {}
	}
	if o.Failed == nil {
		o.Failed = func(*Problem) {}
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) { panic(err) }
	}
	if o.Pause == 0 {
		o.Pause = defaultPause
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	return &FS{FS: inner, o: o, over: make(chan struct{})}
}

// IsFull says whether an error is one of a file system without room, also where it is one of several.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// try runs op until it finds room and the disk takes it, for as long as is right. When it was given up to wait, op is
// left out.
func (f *FS) try(essential bool, op func() error) (leftOut bool, err error) {
	for begin, first := time.Now(), true; ; first = false {
		if f.GivenUp() {
			return true, nil
		}
		err := op()
		switch {
		case isFailure(err):
			f.pause(f.Failed(err), err)
			if !essential && !f.GivenUp() {
				return false, noted{err}
			}
			continue
		case !IsFull(err):
			return false, err
		}
		f.o.Full()
		switch {
		case first:
		case !essential && time.Since(begin) >= f.o.Patience && f.deadline.Load() == nil:
			return false, err
		default:
			f.pause(f.o.Pause, err)
		}
	}
}

// sync runs op once: another sync after one that failed says nothing about what the first one was to write.
func (f *FS) sync(op func() error) error {
	if f.GivenUp() {
		return nil
	}
	err := op()
	switch {
	case isFailure(err):
		f.pause(f.Failed(err), err)
		err = noted{err}
	case IsFull(err):
		f.o.Full()
		f.pause(f.o.Pause, err)
	}
	if f.GivenUp() {
		return nil
	}
	return err
}

// do is try for what has no result.
func (f *FS) do(op func() error) error {
	_, err := f.try(false, op)
	return err
}

// isMarker says whether the store reads something from a name alone.
func (f *FS) isMarker(name string) bool { return strings.HasPrefix(f.PathBase(name), "marker.") }

// isEssential says whether the store ends the process if the file cannot be written.
func (f *FS) isEssential(name string) bool {
	return strings.HasPrefix(f.PathBase(name), "MANIFEST-") || f.isMarker(name)
}

// syncBefore makes the names in the directory durable before one that depends on them changes.
func (f *FS) syncBefore(name string) error {
	if !f.isMarker(name) {
		return nil
	}
	d, err := f.FS.OpenDir(f.PathDir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f *FS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.syncBefore(name); err != nil {
		return nil, err
	}
	h, err := f.open(name, func() (vfs.File, error) { return f.FS.Create(name, category) })
	if err == nil && f.isMarker(name) {
		f.moved.Store(true)
	}
	if w, ok := h.(*file); ok && category == compaction {
		return &restfulFile{file: *w}, err
	}
	return h, err
}

func (f *FS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return f.open(name, func() (vfs.File, error) { return f.FS.OpenReadWrite(name, category, opts...) })
}

func (f *FS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.open(newname, func() (vfs.File, error) { return f.FS.ReuseForWrite(oldname, newname, category) })
}

// open opens a file that is to be written.
func (f *FS) open(name string, op func() (vfs.File, error)) (h vfs.File, err error) {
	essential := f.isEssential(name)
	leftOut, err := f.try(essential, func() (err error) {
		h, err = op()
		return err
	})
	if leftOut {
		h, err = vfs.NewMem().Create("left-out", vfs.WriteCategoryUnspecified)
	}
	if err != nil {
		return nil, err
	}
	w := file{File: h, fs: f}
	if essential {
		return &essentialFile{file: w}, nil
	}
	return &w, nil
}

func (f *FS) Remove(name string) error {
	if err := f.syncBefore(name); err != nil {
		return err
	}
	_, err := f.try(f.isMarker(name), func() error { return f.FS.Remove(name) })
	return err
}

func (f *FS) RemoveAll(name string) error {
	return f.do(func() error { return f.FS.RemoveAll(name) })
}

func (f *FS) Link(oldname, newname string) error {
	return f.do(func() error { return f.FS.Link(oldname, newname) })
}

func (f *FS) Rename(oldname, newname string) error {
	return f.do(func() error { return f.FS.Rename(oldname, newname) })
}

func (f *FS) MkdirAll(dir string, perm os.FileMode) error {
	return f.do(func() error { return f.FS.MkdirAll(dir, perm) })
}

// Unwrap returns the file system below.
func (f *FS) Unwrap() vfs.FS { return f.FS }
