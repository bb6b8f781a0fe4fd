package lsa

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/lsa/format"
)

// LookAtStore says in bad what is wrong with the metadata store in o.Meta: what Open would find before it changes
// anything. err says why the devices do not tell.
func LookAtStore(o Options) (bad, err error) {
	a := newArray(o)
	a.readOnly = true
	defer func() { err = errors.Join(err, a.dismiss()) }()
	if _, err := a.adopt(); err != nil {
		return nil, err
	}
	bad = a.lookAtStore()
	if errors.Is(bad, ErrStaleDevice) && !errors.Is(bad, ErrStaleStore) {
		return nil, bad
	}
	return bad, nil
}

// lookAtStore reads what an opening needs of the metadata store, and changes
// nothing. Pebble writes when it opens a store, before it has read more than its
// list of files: what is damaged, or is not the array's, is to be found before.
func (a *Array) lookAtStore() error {
	dir := a.opts.Meta
	db, err := openMetastore(readOnlyFS{a.opts.FS}, dir, false, true, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return a.storeDamaged(err)
	}
	state, err := readState(db)
	for _, prefix := range []byte{keyLayer, keyVolume, keySegment} {
		if err == nil {
			err = eachRow(db, prefix, func(_, _ []byte) error { return nil })
		}
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return a.storeDamaged(err)
	}
	return a.checkState(state)
}

// checkState says whether the store is the one of the devices.
func (a *Array) checkState(state metaState) error {
	switch dir := a.opts.Meta; {
	case state.Array != a.super.array.String():
		return fmt.Errorf("metadata store %s: %w: it is of array %s, the devices of %v", dir, ErrForeignDevice, state.Array, a.super.array)
	// Where checkpoints have numbers these say all that epochs do, and more: the
	// epoch of an array that was restored from a copy jumps, behind a checkpoint.
	case state.LSN < a.super.cut || a.super.checkpoint == 0 && state.Epoch+1 < a.super.epoch:
		return fmt.Errorf("metadata store %s: %w: it is older than the devices (LSN %d, they know of %d)%s", dir, ErrStaleStore, state.LSN, a.super.cut, orCut)
	case state.Number < a.super.checkpoint:
		return fmt.Errorf("metadata store %s: %w: its last checkpoint is number %d, the devices know of number %d%s", dir, ErrStaleStore, state.Number, a.super.checkpoint, orCut)
	case state.Epoch > a.super.epoch:
		return fmt.Errorf("devices: %w: the metadata store is of epoch %d, they of %d", ErrStaleDevice, state.Epoch, a.super.epoch)
	}
	return nil
}

// orCut is the other way to an old store: Pebble reads a manifest up to the
// first record that is not intact.
const orCut = "; the map that it holds is an old one, or its MANIFEST file is damaged near the end"

// storeDamaged names the file that an error of the store is about.
func (a *Array) storeDamaged(err error) error {
	dir := a.opts.Meta
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, format.ErrInvalid) && !pebble.IsCorruptionError(err) {
		return err // no fault of a file
	}
	text := strings.ReplaceAll(err.Error(), "\n<corruption detail carrier>", "")
	return fmt.Errorf("metadata store %s: %w: %s: %s", dir, ErrStoreDamaged, a.damagedFile(err), strings.ReplaceAll(text, "\n", "; "))
}

var (
	namedFile  = regexp.MustCompile(`(MANIFEST|OPTIONS)-\d+`)
	namedTable = regexp.MustCompile(`(?:file|table|L\d: )\s*(\d{6,})`)
	marker     = regexp.MustCompile(`^marker\.[^.]+\.\d+\..+`)
)

// damagedFile is the name of the file that an error is about.
func (a *Array) damagedFile(err error) string {
	text := err.Error()
	if m := namedFile.FindString(text); m != "" {
		return m
	}
	if m := namedTable.FindStringSubmatch(text); m != nil {
		return m[1] + ".sst"
	}
	list, listErr := a.opts.FS.List(a.opts.Meta)
	if listErr != nil {
		return "the directory"
	}
	for _, name := range list {
		if strings.HasPrefix(name, "marker.") && !marker.MatchString(name) {
			return name
		}
	}
	has := func(prefix string) bool {
		return slices.ContainsFunc(list, func(name string) bool { return strings.HasPrefix(name, prefix) })
	}
	for _, prefix := range []string{"marker.manifest.", "marker.format-version."} {
		if !has(prefix) {
			return prefix + "* is missing"
		}
	}
	if a.opensWithoutOptions() {
		slices.Sort(list)
		slices.Reverse(list)
		for _, name := range list {
			if strings.HasPrefix(name, "OPTIONS-") {
				return name + ", which can be moved away: there is no data in it"
			}
		}
	}
	return "one of its files"
}

// opensWithoutOptions says whether the store's files are intact but for that in
// which Pebble notes how it was opened.
func (a *Array) opensWithoutOptions() bool {
	db, err := openMetastore(withoutOptions{readOnlyFS{a.opts.FS}}, a.opts.Meta, false, true, slog.New(slog.DiscardHandler), nil)
	return err == nil && db.Close() == nil
}

// readOnlyFS leaves out the only thing that Pebble writes when it only reads.
type readOnlyFS struct{ vfs.FS }

func (readOnlyFS) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// withoutOptions hides files.
type withoutOptions struct{ vfs.FS }

func (f withoutOptions) List(dir string) ([]string, error) {
	list, err := f.FS.List(dir)
	return slices.DeleteFunc(list, func(name string) bool { return strings.HasPrefix(name, "OPTIONS-") }), err
}
