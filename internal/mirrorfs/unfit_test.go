package mirrorfs

import (
	"errors"
	"strings"
	"testing"
)

// TestUnfit: of a store that cannot be used no copy is made. What the other side has is left as it is, and a directory
// that was missing is so again.
func TestUnfit(t *testing.T) {
	lose := func(t *testing.T, d *disks) {
		s := side{Side: d.side(0)}
		for _, name := range tables(t, s.Side) {
			if err := d.mem[0].Remove(s.path(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, d *disks)
		look   error
	}{
		{"tables lost", lose, nil},
		{"not what it should be, for who knows", func(*testing.T, *disks) {}, errors.New("not mine")},
	} {
		for _, other := range []string{"missing", "out of date"} {
			t.Run(tt.name+", other "+other, func(t *testing.T) {
				d := newDisks(t)
				filled(t, d, 7)
				old := copyDir(t, d, 1)
				s := mustOpen(t, d.options(false))
				s.fill(t, 8)
				s.close(t)
				if old(); other == "missing" {
					d.mem[1].RemoveAll("/side1")
				}
				tt.damage(t, d)
				o := d.options(false)
				o.Look = func(Side) error { return tt.look }
				if _, err := Open(testContext, o); !errors.Is(err, ErrUnfit) || tt.look != nil && !strings.Contains(err.Error(), tt.look.Error()) {
					t.Fatalf("opened: %v", err)
				}
				if other == "missing" {
					if _, err := d.mem[1].Stat("/side1"); err == nil {
						t.Error("the directory was made")
					}
					return
				}
				d.holdsAlone(t, 1, 7)
			})
		}
	}
}
