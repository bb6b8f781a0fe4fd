package storefs

import "github.com/cockroachdb/pebble/v2/vfs"

// file is a file that is written, and may fail.
type file struct {
	vfs.File
	fs *FS
}

func (f *file) Write(p []byte) (n int, err error) { return f.write(false, p) }

// write appends p. What was written before there was no more room is not written again.
func (f *file) write(essential bool, p []byte) (n int, err error) {
	leftOut, err := f.fs.try(essential, func() error {
		m, err := f.File.Write(p[n:])
		n += m
		return err
	})
	if leftOut {
		n = len(p)
	}
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (n int, err error) {
	leftOut, err := f.fs.try(false, func() error {
		m, err := f.File.WriteAt(p[n:], off+int64(n))
		n += m
		return err
	})
	if leftOut {
		n = len(p)
	}
	return n, err
}

// Sync makes what was written durable. Where that fails the store makes a new file.
func (f *file) Sync() error { return f.fs.sync(f.File.Sync) }

func (f *file) SyncData() error { return f.fs.sync(f.File.SyncData) }

func (f *file) SyncTo(length int64) (full bool, err error) {
	err = f.fs.sync(func() (err error) {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

// essentialFile is one that the store only appends to, and cannot do without.
type essentialFile struct {
	file
	at       int64  // where the unsynced part begins
	unsynced []byte // what was written since the last sync
}

// Write keeps a copy of p first: a vfs.File may modify it, and one in memory does in a process with the race detector.
func (f *essentialFile) Write(p []byte) (n int, err error) {
	had := len(f.unsynced)
	f.unsynced = append(f.unsynced, p...)
	n, err = f.write(true, p)
	f.unsynced = f.unsynced[:had+n]
	return n, err
}

// Sync makes what was written durable. A file system that allocates late finds only here that it has no room, and a disk
// that fails is noticed here. The next sync alone would then say nothing: what the first one was to write may be
// forgotten, so it is written again before.
func (f *essentialFile) Sync() error {
	again := false
	_, err := f.fs.try(true, func() error {
		if again {
			if _, err := f.File.WriteAt(f.unsynced, f.at); err != nil {
				return err
			}
		}
		again = true
		return f.File.Sync()
	})
	if err == nil {
		f.at += int64(len(f.unsynced))
		f.unsynced = f.unsynced[:0]
	}
	return err
}

func (f *essentialFile) SyncData() error { return f.Sync() }

// SyncTo syncs it whole.
func (f *essentialFile) SyncTo(int64) (bool, error) { return true, f.Sync() }
