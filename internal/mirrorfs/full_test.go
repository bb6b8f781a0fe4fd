package mirrorfs

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fullFS is a file system that is full now and then: a write gets in a part of what it should.
type fullFS struct {
	vfs.FS
	full func() bool
	rng  *rand.Rand

	linked string
}

func (f *fullFS) check(op string) error {
	if f.full() {
		return fmt.Errorf("%s: %w", op, syscall.ENOSPC)
	}
	return nil
}

func (f *fullFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.check("create"); err != nil {
		return nil, err
	}
	h, err := f.FS.Create(name, c)
	return &fullFile{h, f}, err
}

// Rename back to an older name undoes one: that needs no room.
func (f *fullFS) Rename(oldname, newname string) error {
	if err := f.check("rename"); err != nil && oldname < newname {
		return err
	}
	return f.FS.Rename(oldname, newname)
}

func (f *fullFS) Link(oldname, newname string) error {
	if err := f.check("link"); err != nil {
		return err
	}
	f.linked = newname
	return f.FS.Link(oldname, newname)
}

// Remove of a name that was linked undoes that.
func (f *fullFS) Remove(name string) error {
	if err := f.check("remove"); err != nil && name != f.linked {
		return err
	}
	return f.FS.Remove(name)
}

type fullFile struct {
	vfs.File
	fs *fullFS
}

func (f *fullFile) Write(p []byte) (int, error) {
	if err := f.fs.check("write"); err != nil {
		n, _ := f.File.Write(p[:f.fs.rng.IntN(len(p)+1)]) // in memory
		return n, err
	}
	return f.File.Write(p)
}

// fullRun does random things to a mirror whose sides are full at random, as the store does them: what fails is tried
// once more after room was made, and given up if there still is none.
type fullRun struct {
	t       *testing.T
	rng     *rand.Rand
	fs      vfs.FS
	dir     string
	percent int // of operations that find a side full
	model   map[string][]byte
	next    int
}

func (r *fullRun) full() bool { return r.rng.IntN(100) < r.percent }

// calm runs fn while nothing is full.
func (r *fullRun) calm(fn func()) {
	was := r.percent
	r.percent = 0
	fn()
	r.percent = was
}

func (r *fullRun) gaveUp(err error) bool {
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		r.t.Fatal(err)
	}
	return err != nil
}

// discard removes what a failed operation may have left.
func (r *fullRun) discard(name string) {
	r.calm(func() {
		if err := r.fs.Remove(name); err != nil && outcomeOf(err) != answer {
			r.t.Fatal(err)
		}
	})
}

func (r *fullRun) newName() string {
	r.next++
	return fmt.Sprintf("%s/%06d", r.dir, r.next)
}

func (r *fullRun) write() {
	name := r.newName()
	f, err := r.fs.Create(name, vfs.WriteCategoryUnspecified)
	if r.gaveUp(err) {
		r.discard(name)
		return
	}
	var content []byte
	for range r.rng.IntN(8) {
		p := make([]byte, r.rng.IntN(3000))
		for i := range p {
			p[i] = byte(r.rng.Uint32())
		}
		n, err := f.Write(p)
		if r.gaveUp(err) {
			f.Close()
			r.discard(name)
			return
		}
		if n != len(p) {
			r.t.Fatalf("%d of %d bytes and no error", n, len(p))
		}
		content = append(content, p...)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		r.t.Fatal(err)
	}
	r.model[name] = content
}

func (r *fullRun) any() string {
	names := []string{}
	for name := range r.model {
		names = append(names, name)
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return names[r.rng.IntN(len(names))]
}

func (r *fullRun) step() {
	old := r.any()
	switch op := r.rng.IntN(5); {
	case op < 2 || old == "":
		r.write()
	case op == 2:
		name := r.newName()
		if !r.gaveUp(r.fs.Rename(old, name)) {
			r.model[name] = r.model[old]
			delete(r.model, old)
		}
	case op == 3:
		name := r.newName()
		if !r.gaveUp(r.fs.Link(old, name)) {
			r.model[name] = r.model[old]
		}
	default:
		if r.gaveUp(r.fs.Remove(old)) {
			r.discard(old)
		}
		delete(r.model, old)
	}
}

// TestFull holds that sides that are full, one or both, stay the same and in service.
func TestFull(t *testing.T) {
	for run := range 60 {
		seed := uint64(time.Now().UnixNano()) + uint64(run)
		r := &fullRun{t: t, rng: rand.New(rand.NewPCG(seed, 0)), model: map[string][]byte{}}
		mem := [2]*vfs.MemFS{vfs.NewMem(), vfs.NewMem()}
		o := Options{Create: true}
		for i := range mem {
			o.Sides = append(o.Sides, Side{&fullFS{FS: mem[i], full: r.full, rng: r.rng}, fmt.Sprint("/", i)})
		}
		m, err := Open(testContext, o)
		if err != nil {
			t.Fatal(err)
		}
		r.dir = m.Root()
		r.percent = 20
		r.fs = vfs.OnDiskFull(m, func() {
			if r.percent = 20; r.rng.IntN(3) > 0 {
				r.percent = 0
			}
		})
		for range 100 {
			r.percent = 20
			r.step()
		}
		for _, st := range m.Status() {
			if !st.InService {
				t.Fatalf("seed %d: %+v", seed, st)
			}
		}
		for i := range mem {
			s := side{Side: Side{mem[i], fmt.Sprint("/", i)}}
			files, err := s.files()
			if err != nil || len(files) != len(r.model) {
				t.Fatalf("seed %d: side %d has %d files, want %d; %v", seed, i, len(files), len(r.model), err)
			}
			for _, name := range files {
				if !bytes.Equal(read(t, mem[i], s.path(name)), r.model[m.PathJoin(m.Root(), name)]) {
					t.Fatalf("seed %d: side %d: %s is not what was written", seed, i, name)
				}
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiskUsage holds that the room is that of the fuller side.
func TestDiskUsage(t *testing.T) {
	d := newDisks(t)
	for i, mem := range d.mem {
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: uint64(300 - 100*i), TotalBytes: 1000})
	}
	m, err := Open(testContext, d.options(true))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if u, err := m.GetDiskUsage(m.Root()); err != nil || u.AvailBytes != 200 {
		t.Errorf("%+v, %v", u, err)
	}
}
