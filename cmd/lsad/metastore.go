package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/mirrorfs"
	"lsad/lsa"
	"lsad/server/admin"
)

// metaStore is where the metadata store lives: one directory as it is, or a mirror of one or two.
type metaStore struct {
	fs     vfs.FS
	dir    string
	mirror *mirrorfs.FS // nil for a single directory that never was in a mirror

	generation atomic.Uint64 // of the mirror
}

// mirrorState is the file by which a directory that was in a mirror is known.
const mirrorState = "mirror.state"

// metaPlan is where to look for the store: dirs as given or remembered; none for DIR/meta.
func (d *dataDir) metaPlan(dirs []string) (all []string, mirrored bool) {
	if len(dirs) > 0 {
		return dirs, true
	}
	dir := d.file(metaDir)
	return []string{dir}, exists(filepath.Join(dir, mirrorState))
}

// mirrorOptions of the directories.
func mirrorOptions(dirs []string, m *members) mirrorfs.Options {
	var o mirrorfs.Options
	for _, dir := range dirs {
		o.Sides = append(o.Sides, mirrorfs.Side{FS: vfs.Default, Dir: dir})
	}
	if m != nil && !m.Creating {
		o.AtLeast = m.MetaGeneration
	}
	return o
}

// openMeta opens the directories of the metadata store. It belongs to the server's ends before the array does.
func (s *server) openMeta(ctx context.Context, create bool) error {
	dirs, mirrored := s.dir.metaPlan(s.plan.meta)
	if !mirrored {
		if _, err := os.Stat(dirs[0]); err != nil && !create {
			return fmt.Errorf("the array's metadata store: %w; without it the devices cannot be read: bring it back, or say with --meta where it is", err)
		}
		s.meta.fs, s.meta.dir = vfs.Default, dirs[0]
		return nil
	}
	o := mirrorOptions(dirs, s.members)
	o.Create, o.Logger, o.OnChange = create, s.log, s.metaChanged
	o.Look = func(side mirrorfs.Side) error {
		bad, err := lsa.LookAtStore(lsa.Options{Devices: s.devices, FS: side.FS, Meta: side.Dir, Degraded: s.cfg.Degraded})
		return errors.Join(bad, err)
	}
	mirror, err := mirrorfs.Open(ctx, o)
	if errors.Is(err, mirrorfs.ErrUnfit) {
		return fmt.Errorf("the array's metadata store: %w%s", err, s.openAdvice(err))
	}
	if err != nil {
		return fmt.Errorf("the array's metadata store: %w", err)
	}
	s.meta.mirror, s.meta.fs, s.meta.dir = mirror, mirror, mirror.Root()
	s.ends.add(mirror.Close)
	return nil
}

// metaChanged remembers a generation of the mirror, as a further witness that a directory is out of date.
func (s *server) metaChanged(generation uint64) {
	s.meta.generation.Store(generation)
	s.membersMu.Lock()
	remembered := s.remembered.Load()
	s.membersMu.Unlock()
	if !remembered {
		return // remember will
	}
	if err := s.changeMembers(func(m *members) { m.MetaGeneration = generation }); err != nil {
		s.log.Warn("could not remember that a metadata directory failed; the other one does", "error", err)
	}
}

// verifyRate is how many bytes a second of each metadata directory are read to see whether they are still as they were
// written.
const verifyRate = 16 << 20

// verifyMeta reads the metadata directories once, beside what goes on.
func (s *server) verifyMeta() {
	if s.meta.mirror == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.meta.mirror.Verify(ctx, verifyRate); err != nil && ctx.Err() == nil {
			s.log.Error("could not compare the metadata directories", "error", err)
		}
	})
	s.ends.add(func() error {
		cancel()
		running.Wait()
		return nil
	})
}

// checkNewMeta says whether a new metadata store can be made in the directories.
func checkNewMeta(dirs []string) error {
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("metadata directory: %w", err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("metadata directory %s is not empty; name another with --meta, or the data directory of the array that it is of with --dir", dir)
		}
	}
	return nil
}

// makeMeta makes the directories for a new metadata store, which were found to be empty or missing.
func (s *server) makeMeta() error {
	for _, dir := range s.plan.meta {
		if err := os.Mkdir(dir, 0o700); err == nil {
			s.made.add(func() error { return os.Remove(dir) })
		} else if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("metadata directory: %w; make what it lies in first, or mount it", err)
		} else if !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("metadata directory: %w", err)
		}
	}
	s.made.add(func() error { return s.dir.removeMeta(s.plan.meta) })
	return nil
}

// removeMeta removes a new metadata store, and the room that the array keeps beside it. The directories in dirs stay.
func (d *dataDir) removeMeta(dirs []string) error {
	if len(dirs) == 0 {
		return errors.Join(os.RemoveAll(d.file(metaDir)), os.RemoveAll(d.file(metaDir+".reserve")))
	}
	var errs []error
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// metaDirs tells how the directories are; failure is what the array says of its metadata store, "" if all is well.
func (s *server) metaDirs(failure string) []admin.MetaDir {
	if s.meta.mirror == nil {
		return []admin.MetaDir{{Dir: s.meta.dir, InService: failure == "", Problem: failure}}
	}
	var all []admin.MetaDir
	for _, st := range s.meta.mirror.Status() {
		d := admin.MetaDir{Dir: st.Dir, InService: st.InService, Problem: st.Problem}
		if !st.Since.IsZero() {
			d.Since = &st.Since
		}
		all = append(all, d)
	}
	return all
}

// metaHealth is an error if the metadata is not where it should be.
func (s *server) metaHealth() error {
	if s.meta.mirror == nil {
		return nil // the array says it
	}
	for _, d := range s.metaDirs("") {
		if !d.InService {
			return fmt.Errorf("metadata directory %s is out of service: %s; it is made equal to the other at the next start", d.Dir, d.Problem)
		}
	}
	return nil
}
