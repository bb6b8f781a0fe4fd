package mirrorfs

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

var testContext = context.Background()

// copyDir keeps a copy of a side as it is, to be put back by the function returned.
func copyDir(t *testing.T, d *disks, i int) (putBack func()) {
	t.Helper()
	// The store may be in use, and its files come and go.
	kept := d.mem[i].CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	return func() {
		d.mem[i] = vfs.NewCrashableMem()
		if _, err := vfs.Clone(kept, d.mem[i], "/", "/"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSides does to one side what happens to disks while the store is stopped.
func TestSides(t *testing.T) {
	table := func(t *testing.T, d *disks, i int) string {
		s := d.side(i)
		return s.FS.PathJoin(s.Dir, tables(t, s)[0])
	}
	manifest := func(t *testing.T, d *disks, i int) string {
		s := side{Side: d.side(i)}
		files, err := s.files()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if len(name) > 8 && name[:8] == "MANIFEST" {
				return s.path(name)
			}
		}
		t.Fatal("there is no manifest")
		return ""
	}
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, d *disks, i int)
	}{
		{"removed", func(t *testing.T, d *disks, i int) { d.mem[i].RemoveAll(d.side(i).Dir) }},
		{"emptied", func(t *testing.T, d *disks, i int) {
			d.mem[i].RemoveAll(d.side(i).Dir)
			d.mem[i].MkdirAll(d.side(i).Dir, 0o700)
		}},
		{"table removed", func(t *testing.T, d *disks, i int) { d.mem[i].Remove(table(t, d, i)) }},
		{"all but the state removed", func(t *testing.T, d *disks, i int) {
			s := side{Side: d.side(i)}
			files, _ := s.files()
			for _, name := range files {
				d.mem[i].Remove(s.path(name))
			}
		}},
		{"table cut short", func(t *testing.T, d *disks, i int) {
			path := table(t, d, i)
			overwrite(t, d.mem[i], path, read(t, d.mem[i], path)[:100])
		}},
		{"byte of the manifest flipped", func(t *testing.T, d *disks, i int) { flip(t, d.mem[i], manifest(t, d, i), 40) }},
		{"manifest removed", func(t *testing.T, d *disks, i int) { d.mem[i].Remove(manifest(t, d, i)) }},
		{"state damaged", func(t *testing.T, d *disks, i int) {
			overwrite(t, d.mem[i], d.side(i).Dir+"/"+stateFile, []byte("nothing"))
		}},
	} {
		for i := range 2 {
			t.Run(tt.name+string(rune('0'+i)), func(t *testing.T) {
				d := newDisks(t)
				filled(t, d, 7)
				tt.do(t, d, i)
				s := mustOpen(t, d.options(false))
				s.wantInService(t, "01")
				s.holds(t, 7)
				s.fill(t, 8)
				s.close(t)
				d.holdsAlone(t, 0, 8)
				d.holdsAlone(t, 1, 8)
			})
		}
	}
}

// TestOldCopy puts an old copy of a side back.
func TestOldCopy(t *testing.T) {
	for i := range 2 {
		d := newDisks(t)
		filled(t, d, 1)
		putBack := copyDir(t, d, i)
		s := mustOpen(t, d.options(false))
		s.fill(t, 2)
		s.close(t)
		putBack()
		s = mustOpen(t, d.options(false))
		s.holds(t, 2)
		s.wantInService(t, "01")
		s.close(t)
		d.holdsAlone(t, i, 2)
	}
}

// TestFlippedTable damages every block of a table: what is read is right all the same, and the side is dropped, then
// rebuilt at the next start.
func TestFlippedTable(t *testing.T) {
	for i := range 2 {
		d := newDisks(t)
		filled(t, d, 3)
		side := d.side(i)
		path := side.FS.PathJoin(side.Dir, tables(t, side)[0])
		b := read(t, d.mem[i], path)
		for at := 100; at < len(b)-2000; at += 1000 {
			b[at] ^= 1
		}
		overwrite(t, d.mem[i], path, b)

		s := mustOpen(t, d.options(false))
		s.wantInService(t, "01") // sizes and names are right
		s.holds(t, 3)
		if err := s.m.Verify(testContext, 1<<40); err != nil {
			t.Fatal(err)
		}
		s.wantInService(t, "10"[i:i+1])
		s.holds(t, 3)
		s.fill(t, 4)
		s.close(t)
		s = mustOpen(t, d.options(false))
		s.wantInService(t, "01")
		s.close(t)
		d.holdsAlone(t, i, 4)
	}
}

// TestReadsOneSide holds that a healthy mirror stays one, and what reads cost: the other side is asked only for
// what is no block.
func TestReadsOneSide(t *testing.T) {
	d := newDisks(t)
	filled(t, d, 3)
	var counts [2]atomic.Int64
	d.setInject(func(side int, op errorfs.Op) error {
		if op.Kind == errorfs.OpFileReadAt && isTable(op.Path) {
			counts[side].Add(1)
		}
		return nil
	})
	s := mustOpen(t, d.options(false))
	s.holds(t, 3)
	before := [2]int64{counts[0].Load(), counts[1].Load()}
	s.holds(t, 3)
	if one, other := counts[0].Load()-before[0], counts[1].Load()-before[1]; one == 0 || other != 0 {
		t.Errorf("%d reads of the first side and %d of the other", one, other)
	}
	if err := s.m.Verify(testContext, 1<<40); err != nil {
		t.Error(err)
	}
	s.wantInService(t, "01")
	s.close(t)
}

// TestConversion makes a mirror of a single store and goes back, and then tells the sides apart.
func TestConversion(t *testing.T) {
	d := newDisks(t)
	one := Options{Sides: []Side{d.side(0)}, Create: true}
	s := mustOpen(t, one)
	s.fill(t, 1)
	s.close(t)
	for _, name := range []string{stateFile, lockFile} { // a store that knew of no mirror
		if err := d.mem[0].Remove("/side0/" + name); err != nil {
			t.Fatal(err)
		}
	}
	s = mustOpen(t, d.options(false))
	s.holds(t, 1)
	s.fill(t, 2)
	s.close(t)
	d.holdsAlone(t, 1, 2)

	one.Create = false
	s = mustOpen(t, one) // back to one
	s.fill(t, 3)
	s.close(t)
	s = mustOpen(t, d.options(false)) // and two again: the second is out of date
	s.holds(t, 3)
	s.close(t)
	d.holdsAlone(t, 1, 3)

	for i := range 2 { // each without the other
		s = mustOpen(t, Options{Sides: []Side{d.side(i)}})
		s.fill(t, 4)
		s.close(t)
	}
	if _, err := openStore(d.options(false)); !errors.Is(err, ErrSplit) {
		t.Errorf("two sides that were used apart: %v", err)
	}
}

// TestWitness holds that an old side does not serve while the newer one is away.
func TestWitness(t *testing.T) {
	d := newDisks(t)
	var seen uint64
	o := d.options(true)
	o.OnChange = func(g uint64) { seen = g }
	s := mustOpen(t, o)
	d.setInject(func(side int, op errorfs.Op) error {
		if side == 1 {
			return errDisk
		}
		return nil
	})
	s.fill(t, 1)
	s.wantInService(t, "0")
	s.close(t)
	d.setInject(func(side int, op errorfs.Op) error {
		if side == 0 {
			return errDisk
		}
		return nil
	})
	o.Create, o.AtLeast = false, seen
	if _, err := openStore(o); !errors.Is(err, ErrStale) {
		t.Errorf("opened an old side: %v", err)
	}
	if _, err := Newest(o); !errors.Is(err, ErrStale) {
		t.Errorf("looked at an old side: %v", err)
	}
}

// TestInUse holds that nobody touches the directories of a running mirror.
func TestInUse(t *testing.T) {
	d := newDisks(t)
	s := mustOpen(t, d.options(true))
	defer s.close(t)
	if _, err := openStore(Options{Sides: []Side{d.side(1)}}); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
}
