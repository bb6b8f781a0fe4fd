package mirrorfs

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// noWrites fails the test if anything is changed.
func noWrites(t *testing.T, d *disks) {
	d.setInject(func(side int, op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			t.Errorf("side %d: %v of %s", side, op.Kind, op.Path)
		}
		return nil
	})
}

// line tells of a report in a line.
func (r *Report) line() string {
	return fmt.Sprintf("counts %v, equal %v, out %q, damage %q", r.Counts, r.Equal, r.Out, r.Damage)
}

// TestExamine does things to side 1 and has both examined. Damage of files is for the test of the command.
func TestExamine(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, d *disks)
		look error // of side 1
		want [2]string
	}{
		{"nothing", func(*testing.T, *disks) {}, nil,
			[2]string{`counts true, equal false, out "", damage []`, `counts false, equal false, out "", damage []`}},
		{"not what it should be, for who knows", func(*testing.T, *disks) {}, errors.New("not mine"),
			[2]string{`counts true, equal false, out "", damage []`, `counts false, equal false, out "", damage ["not mine"]`}},
		{"rebuild cut short", func(t *testing.T, d *disks) {
			s := &side{Side: d.side(1)}
			f := (&Options{}).find(s.Side)
			s.state = f.state
			next := *f.state
			next.rebuilding = true
			if err := errors.Join(s.writeState(next), s.release()); err != nil {
				t.Fatal(err)
			}
		}, nil, [2]string{`counts true, equal false, out "", damage []`, `counts false, equal true, out "a rebuild of it was cut short", damage []`}},
		{"out of service", func(t *testing.T, d *disks) {
			s := mustOpen(t, d.options(false))
			d.setInject(func(side int, op errorfs.Op) error {
				if side == 1 {
					return errDisk
				}
				return nil
			})
			s.fill(t, 8)
			s.close(t)
		}, nil, [2]string{`counts true, equal false, out "", damage []`, `counts false, equal true, out "out of date: of generation 2, the other of 3", damage []`}},
		{"cannot be read", func(t *testing.T, d *disks) {
			d.setInject(func(side int, op errorfs.Op) error {
				if side == 1 {
					return errDisk
				}
				return nil
			})
		}, nil, [2]string{`counts true, equal false, out "", damage []`, `counts false, equal false, out "injected: input/output error", damage []`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDisks(t)
			filled(t, d, 7)
			failing := tt.name == "cannot be read"
			if tt.do(t, d); !failing {
				noWrites(t, d)
			}
			o := d.options(false)
			o.Look = func(s Side) error {
				if s.Dir == d.side(1).Dir {
					return tt.look
				}
				return nil
			}
			reports, err := Examine(testContext, o)
			if err != nil {
				t.Fatal(err)
			}
			for i := range reports {
				if got := reports[i].line(); got != tt.want[i] {
					t.Errorf("side %d: %s, want %s", i, got, tt.want[i])
				}
			}
		})
	}
}

// TestExamineCrash: what two sides differ in after a crash is no damage. The one that tells more counts.
func TestExamineCrash(t *testing.T) {
	d := newDisks(t)
	filled(t, d, 1)
	putBack := copyDir(t, d, 0)
	s := mustOpen(t, d.options(false))
	s.fill(t, 2)
	crashed := [2]func(){copyDir(t, d, 0), copyDir(t, d, 1)} // while it is in use
	s.close(t)
	crashed[1]()
	crashed[0]()
	newer := read(t, d.mem[0], "/side0/"+stateFile)
	putBack()
	overwrite(t, d.mem[0], "/side0/"+stateFile, newer) // as if it had lost what was not synced
	noWrites(t, d)
	reports, err := Examine(testContext, d.options(false))
	if err != nil {
		t.Fatal(err)
	}
	if len(reports[0].Damage)+len(reports[1].Damage) > 0 || !reports[1].Counts || !reports[0].Equal {
		t.Errorf("%s; %s", reports[0].line(), reports[1].line())
	}
}
