package mirrorfs

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// atRest makes a store with a version of each key, all of whose tables are needed, closed in order.
func atRest(t *testing.T, d *disks, version uint64) {
	t.Helper()
	s := mustOpen(t, d.options(true))
	s.fill(t, version)
	if err := s.db.Compact(testContext, key(0), key(keys), false); err != nil {
		t.Fatal(err)
	}
	s.close(t)
}

// damageBlocks flips a byte in every block of data of a side's first table for which pick says so: in the middle of it,
// or in its checksum.
func damageBlocks(t *testing.T, d *disks, i int, checksum bool, pick func(n int) bool) (path string) {
	t.Helper()
	name := slices.Min(tables(t, d.side(i)))
	s := side{Side: d.side(i)}
	parts, err := s.parts(testContext, name)
	if err != nil {
		t.Fatal(err)
	}
	b := read(t, d.mem[i], s.path(name))
	n := 0
	for _, p := range parts[:len(parts)-5] { // without the index and what else describes the table
		if at := p.off + p.size/2; pick(n) {
			if checksum {
				at = p.off + p.size - 1
			}
			b[at] ^= 1
		}
		n++
	}
	if n < 4 {
		t.Fatalf("a table of %d blocks", n)
	}
	overwrite(t, d.mem[i], s.path(name), b)
	return s.path(name)
}

// useOnce opens the store, reads what can be read, and stops: the side where damage is found first is dropped.
func useOnce(t *testing.T, d *disks) {
	t.Helper()
	s, err := openStore(d.options(false))
	if err != nil {
		return
	}
	if list, err := s.versions(); err == nil {
		t.Fatalf("both sides are damaged, and all was read: %v", list[:3])
	}
	s.close(t)
}

// TestEachSideDamaged damages every second block of a table on one side and the others on the other. The start after the
// damage was found has every block: it copies none that is damaged over one that is not.
func TestEachSideDamaged(t *testing.T) {
	d := newDisks(t)
	atRest(t, d, 3)
	damageBlocks(t, d, 0, false, func(n int) bool { return n%2 == 0 })
	damageBlocks(t, d, 1, false, func(n int) bool { return n%2 == 1 })
	useOnce(t, d)
	s := mustOpen(t, d.options(false))
	s.wantInService(t, "01")
	s.holds(t, 3)
	s.close(t)
	d.holdsAlone(t, 0, 3)
	d.holdsAlone(t, 1, 3)
}

// TestOnlyGoodCopy damages all of a table on the side that goes on alone, checksums and all. The other side missed
// changes: whether its table is the same cannot be told. So it stays away, and what it has is not overwritten.
func TestOnlyGoodCopy(t *testing.T) {
	d := newDisks(t)
	atRest(t, d, 3)
	kept := damageBlocks(t, d, 0, false, func(n int) bool { return n == 0 })
	s := mustOpen(t, d.options(false))
	s.holds(t, 3)
	s.wantInService(t, "1")
	s.close(t)
	damageBlocks(t, d, 1, true, func(n int) bool { return n == 1 })
	was := read(t, d.mem[0], kept)
	for range 2 {
		m, err := Open(testContext, d.options(false))
		if err != nil {
			t.Fatal(err)
		}
		if st := m.Status()[0]; st.InService || !strings.Contains(st.Problem, errOnlyGood.Error()) {
			t.Errorf("the side with the good copy: %+v", st)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(read(t, d.mem[0], kept), was) {
		t.Error("the only good copy was overwritten")
	}
}
