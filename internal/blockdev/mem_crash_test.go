package blockdev

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// writeSector fills a sector with a value.
func writeSector(t *testing.T, m *Mem, sector int64, value byte) {
	t.Helper()
	if err := m.WriteVec([][]byte{bytes.Repeat([]byte{value}, SectorSize)}, sector*SectorSize); err != nil {
		t.Fatal(err)
	}
}

// afterCrash is the device that a power loss leaves if each unsynced
// operation, from the oldest, is kept (+) or lost (-).
func afterCrash(m *Mem, fates string) *Mem {
	c := m.copyPages()
	c.undo(m.unsynced.entries, func(i int) tear { return tear{whole: fates[i] == '+'} })
	return c
}

// Whatever of a sector's writes survives, the last survivor is what is there,
// and its neighbours in the page are none the worse.
func TestMemLastSurvivingWriteWins(t *testing.T) {
	m := NewMem("m", 2*pageSize)
	for value := byte(1); value <= 4; value++ { // each writes sector 0 and one of its own
		writeSector(t, m, 0, value)
		writeSector(t, m, int64(value), value)
	}
	for set := range 256 {
		fates, want := "", [5]byte{}
		for i := range 8 {
			value := byte(i/2 + 1)
			switch {
			case set&(1<<i) == 0:
				fates += "-"
				continue
			case i%2 == 0:
				want[0] = value
			default:
				want[value] = value
			}
			fates += "+"
		}
		b := contents(t, afterCrash(m, fates))
		for sector, value := range want {
			if got := b[sector*SectorSize]; got != value {
				t.Errorf("%s: sector %d has %d, want %d", fates, sector, got, value)
			}
		}
	}
}

// What was under way when the process was killed and got through is as little
// synced as the rest.
func TestMemKilledDuringAWriteThenPowerLost(t *testing.T) {
	rng := newRand(2)
	m := NewMem("m", 1<<20)
	landed := false
	m.OnOp = func(Op) error {
		for range 50 {
			k := m.KillClone(rng)
			if b := contents(t, k); b[0] == 1 {
				landed = true
				if b := contents(t, afterCrash(k, "-")); b[0] != 0 {
					t.Error("it was durable")
				}
			}
		}
		return nil
	}
	writeSector(t, m, 0, 1)
	if !landed {
		t.Error("a write under way never got through")
	}
}

func TestMemFailedSyncIsNotMendedByTheNext(t *testing.T) {
	m := NewMem("m", 1<<20)
	fail := false
	m.OnOp = func(op Op) error {
		if fail && op.Kind == OpSync {
			return errInjected
		}
		return nil
	}
	trySync := func(failing bool) {
		t.Helper()
		fail = failing
		if err := m.Sync(); errors.Is(err, errInjected) != failing {
			t.Fatal(err)
		}
	}
	writeSector(t, m, 1, 1)
	writeSector(t, m, 2, 2)
	trySync(true)
	writeSector(t, m, 2, 20)
	writeSector(t, m, 3, 3)
	trySync(false)
	trySync(false)
	if len(m.unsynced.entries) != 1 {
		t.Fatalf("%d entries left, want that of the first write", len(m.unsynced.entries))
	}
	b := contents(t, afterCrash(m, "-"))
	for sector, want := range []byte{0, 0, 20, 3} {
		if got := b[sector*SectorSize]; got != want {
			t.Errorf("sector %d has %d, want %d", sector, got, want)
		}
	}
	if b := contents(t, m); b[SectorSize] != 1 {
		t.Error("a read no longer gives what was written")
	}
}

// What either of a device and its clone does never shows in the other, in
// contents, in what is unsynced, or in the space used.
func TestMemClonesAreIndependent(t *testing.T) {
	rng := newRand(1)
	m := NewMem("m", 1<<20)
	for i := range int64(5) { // leaves room in the list of entries
		writeSector(t, m, i, 1)
	}
	k := m.KillClone(rng)
	for i := range int64(3) {
		writeSector(t, k, 100+i, 2)
		writeSector(t, m, 200+i, 3)
	}
	if err := k.Discard(0, pageSize); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		d     *Mem
		value byte
		n     int
		used  int64
	}{"device": {m, 3, 3, 2}, "clone": {k, 2, 3, 1}} {
		b := contents(t, test.d)
		if bytes.Count(b, []byte{5 - test.value}) != 0 || bytes.Count(b, []byte{test.value}) != test.n*SectorSize {
			t.Errorf("%s: has writes of the other, or not its own", name)
		}
		if used := test.d.Used() / pageSize; used != test.used {
			t.Errorf("%s: %d pages used, want %d", name, used, test.used)
		}
		c := afterCrash(test.d, fmt.Sprintf("%020d", 0))
		if b := contents(t, c); bytes.Count(b, []byte{0}) != len(b) || c.Used() != 0 {
			t.Errorf("%s: losing everything unsynced leaves something (%d bytes used)", name, c.Used())
		}
	}
}

// A discard that is lost brings the bytes back, and one that is kept the zeros.
func TestMemDiscardMayBeLost(t *testing.T) {
	m := NewMem("m", 4*pageSize)
	full := bytes.Repeat([]byte{7}, 4*pageSize)
	if err := m.WriteVec([][]byte{full}, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := m.Discard(SectorSize, 3*pageSize); err != nil {
		t.Fatal(err)
	}
	punched := bytes.Clone(full)
	clear(punched[SectorSize : SectorSize+3*pageSize])
	if !bytes.Equal(contents(t, m), punched) {
		t.Error("reads after the discard do not give zeros")
	}
	if b := contents(t, afterCrash(m, "-")); !bytes.Equal(b, full) {
		t.Error("the lost discard did not bring the bytes back")
	}
	if b := contents(t, afterCrash(m, "+")); !bytes.Equal(b, punched) {
		t.Error("the kept discard did not stay")
	}
}
