package mirrorfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"lsad/internal/storefs"
)

// disks are two file systems with a directory each, and what is injected into them.
type disks struct {
	mem    [2]*vfs.MemFS
	inject atomic.Value // of type injector
}

type injector func(side int, op errorfs.Op) error

func (d *disks) setInject(fn injector) { d.inject.Store(fn) }

func newDisks(t testing.TB) *disks {
	d := &disks{}
	for i := range d.mem {
		d.mem[i] = vfs.NewCrashableMem()
	}
	return d
}

func (d *disks) side(i int) Side {
	return Side{FS: errorfs.Wrap(d.mem[i], errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fn, _ := d.inject.Load().(injector); fn != nil {
			return fn(i, op)
		}
		return nil
	})), Dir: fmt.Sprintf("/side%d", i)}
}

func (d *disks) options(create bool) Options {
	return Options{Sides: []Side{d.side(0), d.side(1)}, Create: create}
}

// store is Pebble on a mirror, as the array uses it.
type store struct {
	m  *FS
	db *pebble.DB
}

func openStore(o Options) (_ *store, err error) {
	m, err := Open(testContext, o)
	if err != nil {
		return nil, err
	}
	s := &store{m: m}
	defer func() {
		if p := recover(); p != nil { // Pebble's marker panics where a directory cannot be synced
			err = fmt.Errorf("panic: %v", p)
		}
		if err != nil {
			m.Close()
		}
	}()
	s.db, err = pebble.Open(m.Root(), &pebble.Options{
		FS: storefs.New(m, storefs.Options{}), DisableWAL: true, ErrorIfExists: o.Create, ErrorIfNotExists: !o.Create,
		FormatMajorVersion: pebble.FormatNewest, MemTableSize: 64 << 10, Logger: panicking{}, CacheSize: 1 << 10,
		L0CompactionThreshold: 2, DisableAutomaticCompactions: false,
		EventListener: &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}},
	})
	return s, err
}

type panicking struct{ quiet }

func (s *store) close(t testing.TB) {
	t.Helper()
	if err := s.db.Close(); err != nil {
		t.Error(err)
	}
	if err := s.m.Close(); err != nil {
		t.Error(err)
	}
}

func mustOpen(t testing.TB, o Options) *store {
	t.Helper()
	s, err := openStore(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keys of the test's store, each with a value that names a version of it.
const keys = 200

func key(k int) []byte { return fmt.Appendf(nil, "key%06d", k) }

// value is as long as to make tables of many blocks.
func value(version uint64) []byte {
	b := make([]byte, 500)
	for i := range b {
		b[i] = byte(uint64(i) * version * 2654435761 >> 7)
	}
	binary.LittleEndian.PutUint64(b, version)
	return b
}

func (s *store) put(t testing.TB, k int, version uint64) {
	t.Helper()
	if err := s.db.Set(key(k), value(version), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
}

// versions reads everything.
func (s *store) versions() ([]uint64, error) {
	list := make([]uint64, keys)
	for k := range keys {
		v, c, err := s.db.Get(key(k))
		if err == pebble.ErrNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		list[k] = binary.LittleEndian.Uint64(v)
		same := slices.Equal(v, value(list[k]))
		c.Close()
		if !same {
			return nil, fmt.Errorf("key %d: not a value that was written", k)
		}
	}
	return list, nil
}

// fill writes a version of every key, and flushes.
func (s *store) fill(t testing.TB, version uint64) {
	t.Helper()
	for k := range keys {
		s.put(t, k, version)
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
}

// holds fails unless every key has the version.
func (s *store) holds(t testing.TB, version uint64) {
	t.Helper()
	list, err := s.versions()
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range list {
		if v != version {
			t.Fatalf("key %d has version %d, want %d", k, v, version)
		}
	}
}

// inService lists the sides in service.
func (s *store) inService() string {
	text := ""
	for i, st := range s.m.Status() {
		if st.InService {
			text += fmt.Sprint(i)
		}
	}
	return text
}

func (s *store) wantInService(t testing.TB, want string) {
	t.Helper()
	if got := s.inService(); got != want {
		t.Fatalf("sides in service: %q, want %q; %+v", got, want, s.m.Status())
	}
}

// filled makes a store with a version of each key, closed in order.
func filled(t testing.TB, d *disks, version uint64) {
	t.Helper()
	s := mustOpen(t, d.options(true))
	s.fill(t, version)
	s.close(t)
}

// holdsAlone fails unless a side on its own has the version of every key.
func (d *disks) holdsAlone(t testing.TB, i int, version uint64) {
	t.Helper()
	copied := vfs.NewMem()
	if _, err := vfs.Clone(d.mem[i], copied, "/", "/"); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Options{Sides: []Side{{copied, d.side(i).Dir}}})
	s.holds(t, version)
	s.close(t)
}

func tables(t testing.TB, s Side) []string {
	t.Helper()
	all, err := s.FS.List(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(name string) bool { return !isTable(name) })
}

func read(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func overwrite(t testing.TB, fs vfs.FS, path string, b []byte) {
	t.Helper()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// flip damages a byte in the middle of a file.
func flip(t testing.TB, fs vfs.FS, path string, at int) {
	t.Helper()
	b := read(t, fs, path)
	b[at] ^= 0x10
	overwrite(t, fs, path, b)
}

var errDisk = fmt.Errorf("injected: %w", syscall.EIO)
