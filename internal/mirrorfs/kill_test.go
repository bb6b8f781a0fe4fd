package mirrorfs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// life is a store's life from one start to a stop.
func life(t *testing.T, d *disks, version uint64) (*store, error) {
	s, err := openStore(d.options(false))
	if err != nil {
		return nil, err
	}
	s.fill(t, version)
	s.fill(t, version+1)
	s.holds(t, version+1)
	return s, nil
}

// TestKillASide lets a side fail for good at each operation in turn of a life, opening and closing included.
func TestKillASide(t *testing.T) {
	step := int64(29)
	switch {
	case os.Getenv("LSAD_SOAK") != "":
		step = 1
	case os.Getenv("LSAD_TEST") == "full":
		step = 5
	}
	for i := range 2 {
		for n := rand.Int64N(step); ; n += step {
			d := newDisks(t)
			filled(t, d, 1)
			var count atomic.Int64
			var hit atomic.Bool
			d.setInject(func(side int, op errorfs.Op) error {
				if side == i && count.Add(1) > n {
					hit.Store(true)
					return fmt.Errorf("operation %d, %v %s: %w", n, op.Kind, op.Path, errDisk)
				}
				return nil
			})
			s, err := life(t, d, 2)
			if err != nil {
				t.Fatalf("side %d fails at operation %d: %v", i, n, err)
			}
			if err := s.db.Close(); err != nil {
				t.Fatalf("side %d fails at operation %d: close: %v", i, n, err)
			}
			closeErr := s.m.Close() // may tell of it
			inService := s.inService()
			d.setInject(nil)
			if !hit.Load() {
				if closeErr != nil {
					t.Fatal(closeErr)
				}
				if n < 50 {
					t.Fatalf("a life took only %d operations", n)
				}
				break
			}
			if closeErr == nil && inService == "01" && count.Load() > n+3 {
				t.Fatalf("side %d failed at operation %d, and nobody noticed", i, n)
			}
			s = mustOpen(t, d.options(false))
			s.holds(t, 3)
			s.wantInService(t, "01")
			s.close(t)
			d.holdsAlone(t, 0, 3)
			d.holdsAlone(t, 1, 3)
		}
	}
}

// TestFailOnce lets a side fail at a single operation: it is out all the same, since what failed may be missing there.
func TestFailOnce(t *testing.T) {
	for n := int64(0); n < 600; n += 29 {
		d := newDisks(t)
		filled(t, d, 1)
		s := mustOpen(t, d.options(false))
		var count atomic.Int64
		d.setInject(func(side int, op errorfs.Op) error {
			if side == 1 && count.Add(1) == n+1 && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				return errDisk
			}
			return nil
		})
		s.fill(t, 2)
		d.setInject(nil)
		s.holds(t, 2)
		s.close(t)
		s = mustOpen(t, d.options(false))
		s.holds(t, 2)
		s.close(t)
		d.holdsAlone(t, 0, 2)
		d.holdsAlone(t, 1, 2)
	}
}

// TestBothFail holds that nothing is acknowledged when the survivor cannot remember that it is alone.
func TestBothFail(t *testing.T) {
	d := newDisks(t)
	s, err := Open(testContext, d.options(true))
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Create(s.Root()+"/x.sst", "")
	if err != nil {
		t.Fatal(err)
	}
	d.setInject(func(side int, op errorfs.Op) error {
		if side == 1 || op.Kind == errorfs.OpFileWriteAt || op.Kind == errorfs.OpOpen && op.Path == "/side0/"+stateFile {
			return errDisk
		}
		return nil
	})
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("a write was acknowledged that one side lacks, and the other does not know that")
	}
	d.setInject(nil)
	f.Close()
	s.Close()
}
