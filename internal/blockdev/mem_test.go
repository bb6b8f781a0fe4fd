package blockdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// memModel is the oracle for one Mem: for each sector, every version that a
// power loss may leave there, the current one last.
type memModel struct {
	current  []byte
	versions [][]string
	dirty    []bool // the next successful Sync makes the current version durable
	tainted  []bool // a Sync of it failed, and it was not written since
}

func newMemModel(size int) *memModel {
	m := &memModel{
		current:  make([]byte, size),
		versions: make([][]string, size/SectorSize),
		dirty:    make([]bool, size/SectorSize),
		tainted:  make([]bool, size/SectorSize),
	}
	for s := range m.versions {
		m.versions[s] = []string{m.sector(s)}
	}
	return m
}

func (m *memModel) sector(s int) string {
	return string(m.current[s*SectorSize : (s+1)*SectorSize])
}

func (m *memModel) write(b []byte, off int) {
	copy(m.current[off:], b)
	for s := off / SectorSize; s*SectorSize < off+len(b); s++ {
		m.versions[s] = append(m.versions[s], m.sector(s))
		m.dirty[s], m.tainted[s] = true, false
	}
}

// discard is a write of zeros, except that it does not mend a failed Sync.
func (m *memModel) discard(off, n int) {
	clear(m.current[off : off+n])
	for s := off / SectorSize; s*SectorSize < off+n; s++ {
		m.versions[s] = append(m.versions[s], m.sector(s))
		m.dirty[s] = !m.tainted[s]
	}
}

func (m *memModel) sync(failed bool) {
	for s := range m.versions {
		if m.dirty[s] && failed {
			m.tainted[s] = true
		} else if m.dirty[s] {
			m.versions[s] = []string{m.sector(s)}
		}
		m.dirty[s] = false
	}
}

// matches checks that reads of c give what was last written.
func (m *memModel) matches(t *testing.T, c *Mem) {
	t.Helper()
	if got := contents(t, c); !bytes.Equal(got, m.current) {
		t.Fatal("device and model differ")
	}
}

// legal checks that each sector of c is one of its versions.
func (m *memModel) legal(t *testing.T, c *Mem) {
	t.Helper()
	got := contents(t, c)
next:
	for s, versions := range m.versions {
		for _, v := range versions {
			if string(got[s*SectorSize:(s+1)*SectorSize]) == v {
				continue next
			}
		}
		t.Fatalf("sector %d is none of its %d versions", s, len(versions))
	}
}

func contents(t *testing.T, d Device) []byte {
	t.Helper()
	b := make([]byte, d.Size())
	if err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, (n+7)&^7)
	for i := 0; i < n; i += 8 {
		binary.NativeEndian.PutUint64(b[i:], rng.Uint64())
	}
	return b[:n]
}

// split cuts b into a few buffers, some of them empty.
func split(rng *rand.Rand, b []byte) [][]byte {
	var bufs [][]byte
	for len(b) > 0 {
		n := rng.IntN(len(b) + 1)
		bufs, b = append(bufs, b[:n]), b[n:]
	}
	return bufs
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

var errInjected = errors.New("injected")

func TestMemCrashStatesAreLegal(t *testing.T) {
	for range 60 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed=%#x", seed), func(t *testing.T) {
			checkCrashStates(t, newRand(seed))
		})
	}
}

// checkCrashStates runs a random history on a device and compares clones,
// made at random moments of it, with the model.
func checkCrashStates(t *testing.T, rng *rand.Rand) {
	const size = 5*pageSize + 3*SectorSize
	m, model := NewMem("m", size), newMemModel(size)
	var failSync bool
	hook := func(op Op) error {
		if op.Kind == OpSync && failSync {
			return errInjected
		}
		return nil
	}
	m.OnOp = hook
	for range 60 {
		off := rng.IntN(size)
		n := 1 + rng.IntN(min(size-off, 1<<rng.IntN(17)))
		if rng.IntN(2) == 0 { // aligned to pages, as whole ones take another path
			off -= off % pageSize
			n = min(pageSize*(1+rng.IntN(2)), size-off)
		}
		var err error
		switch rng.IntN(12) {
		case 0:
			err = m.Discard(int64(off), int64(n))
			model.discard(off, n)
		case 1:
			err = m.Allocate(int64(off), int64(n))
		case 2, 3:
			failSync = rng.IntN(3) == 0
			if err = m.Sync(); failSync && errors.Is(err, errInjected) {
				err = nil
			}
			model.sync(failSync)
		case 4: // the process dies and another goes on with what it finds
			old := m
			m = m.KillClone(rng)
			m.OnOp = hook
			if err := old.WriteVec([][]byte{randomBytes(rng, size)}, 0); err != nil {
				t.Fatal(err)
			}
		case 5:
			c := m.CrashClone(rng)
			model.legal(t, c)
			again := c.CrashClone(rng)
			if !bytes.Equal(contents(t, c), contents(t, again)) {
				t.Fatal("a crash state lost something in a second crash")
			}
			if err := c.WriteVec([][]byte{randomBytes(rng, size)}, 0); err != nil {
				t.Fatal(err)
			}
		default:
			b := randomBytes(rng, n)
			err = m.WriteVec(split(rng, b), int64(off))
			model.write(b, off)
		}
		if err != nil {
			t.Fatal(err)
		}
		model.matches(t, m)
	}
	for range 10 {
		model.legal(t, m.CrashClone(rng))
	}
	model.matches(t, m)
}

// Each kind of state must come up, or the explorer would search less than it
// seems to.
func TestMemCrashStatesVary(t *testing.T) {
	rng := newRand(7)
	const each = 4 << 10
	m := NewMem("m", 8*each)
	write := func(value byte) {
		if err := m.WriteVec([][]byte{bytes.Repeat([]byte{value}, each)}, int64(value)*each); err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	if err := m.Sync(); err != nil {
		t.Fatal(err)
	}
	write(2)
	write(3)
	write(4)
	seen := make(map[string]int)
	for range 2000 {
		b := contents(t, m.CrashClone(rng))
		if bytes.Count(b[each:2*each], []byte{1}) != each {
			t.Fatal("lost what was synced")
		}
		state := ""
		for v := byte(2); v <= 4; v++ {
			switch bytes.Count(b, []byte{v}) {
			case 0:
				state += "-"
			case each:
				state += "+"
			default:
				state += "~"
			}
		}
		seen[state]++
	}
	if len(seen) != 27 {
		t.Errorf("saw %d of the 27 combinations of kept (+), lost (-) and torn (~): %v", len(seen), seen)
	}
	for state, n := range seen {
		if n < 3 {
			t.Errorf("state %s came up only %d times in 2000", state, n)
		}
	}
}

func TestMemWriteUnderWay(t *testing.T) {
	rng := newRand(3)
	for _, clone := range []func(*Mem) *Mem{
		func(m *Mem) *Mem { return m.CrashClone(rng) },
		func(m *Mem) *Mem { return m.KillClone(rng) },
	} {
		m := NewMem("m", 64<<10)
		seen := make(map[string]bool)
		m.OnOp = func(op Op) error {
			for range 300 {
				b := contents(t, clone(m))
				n := bytes.Count(b, []byte{9})
				if rest := n % SectorSize; rest != 0 && rest != 8 && rest != 56 && rest != 8+56 {
					t.Fatalf("%d bytes of a sector written", n%SectorSize)
				}
				switch n {
				case 0:
					seen["none"] = true
				case 40000:
					seen["whole"] = true
				default:
					seen["torn"] = true
				}
			}
			return errInjected
		}
		err := m.WriteVec([][]byte{bytes.Repeat([]byte{9}, 40000)}, 3*SectorSize-8)
		if !errors.Is(err, errInjected) {
			t.Fatalf("got %v", err)
		}
		if len(seen) != 3 {
			t.Errorf("a write under way was only seen %v", seen)
		}
		m.OnOp = nil
		if n := bytes.Count(contents(t, m), []byte{9}); n != 0 {
			t.Errorf("a failed write left %d bytes", n)
		}
	}
}

// A Sync covers what completed before it was issued, and nothing later.
func TestMemSyncCoversWhatCompletedBefore(t *testing.T) {
	rng := newRand(5)
	m := NewMem("m", 1<<20)
	put := func(value byte) {
		if err := m.WriteVec([][]byte{{value}}, int64(value)*SectorSize); err != nil {
			t.Fatal(err)
		}
	}
	put(1)
	m.OnOp = func(op Op) error {
		if op.Kind == OpSync {
			put(2)
		}
		return nil
	}
	if err := m.Sync(); err != nil {
		t.Fatal(err)
	}
	lost := false
	for range 100 {
		b := contents(t, m.CrashClone(rng))
		if b[1*SectorSize] != 1 {
			t.Fatal("a write before the sync was lost")
		}
		lost = lost || b[2*SectorSize] != 2
	}
	if !lost {
		t.Error("a write that came during the sync was never lost")
	}
}

func TestMemKilledThenPowerLost(t *testing.T) {
	rng := newRand(6)
	m := NewMem("m", 1<<20)
	if err := m.WriteVec([][]byte{{1}}, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	next := m.KillClone(rng)
	if b := contents(t, next); b[0] != 1 {
		t.Fatal("a completed write did not survive the process")
	}
	lost := false
	for range 100 {
		lost = lost || contents(t, next.CrashClone(rng))[0] == 0
	}
	if !lost {
		t.Error("an unsynced write became durable by a restart")
	}
}

func TestMemCrashAllIsOneInstant(t *testing.T) {
	rng := newRand(8)
	a, b := NewMem("a", 1<<10), NewMem("b", 1<<10)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { // b's count follows a's; both wrap around
		for i := byte(1); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			for _, d := range []*Mem{a, b} {
				if err := d.WriteVec([][]byte{{i}}, 0); err != nil {
					t.Error(err)
				}
				if i%16 == 0 { // or a crash would have ever more to undo
					if err := d.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		}
	})
	for range 200 {
		called := false
		c := KillAll(rng, []*Mem{a, b}, func() { called = true })
		x, y := contents(t, c[0])[0], contents(t, c[1])[0]
		if x != y && x != y+1 {
			t.Fatalf("a is at %d, b at %d", x, y)
		}
		if !called {
			t.Fatal("what should crash in the same instant did not")
		}
		if got := CrashAll(rng, []*Mem{b, a}); len(got) != 2 || got[0].Name() != "b" {
			t.Fatal("CrashAll mixes its devices up")
		}
	}
	close(stop)
	wg.Wait()
}

func TestMemSpace(t *testing.T) {
	m := NewMem("m", 1<<20)
	m.SetSpace(4 * pageSize)
	full := make([]byte, 4*pageSize)
	steps := []struct {
		what string
		do   func() error
		want error
		used int64
	}{
		{"allocate", func() error { return m.Allocate(0, 2*pageSize) }, nil, 2},
		{"write over the allocation", func() error { return m.WriteVec([][]byte{full[:2*pageSize]}, 0) }, nil, 2},
		{"write too much", func() error { return m.WriteVec([][]byte{full}, pageSize) }, ErrNoSpace, 2},
		{"fill", func() error { return m.WriteVec([][]byte{full}, 0) }, nil, 4},
		{"write over", func() error { return m.WriteVec([][]byte{full[:1]}, 7) }, nil, 4},
		{"allocate too much", func() error { return m.Allocate(4*pageSize, 1) }, ErrNoSpace, 4},
		{"discard", func() error { return m.Discard(1, 2*pageSize-1) }, nil, 3},
		{"take the space again", func() error { return m.Allocate(4*pageSize, 1) }, nil, 4},
	}
	for _, s := range steps {
		if err := s.do(); !errors.Is(err, s.want) {
			t.Errorf("%s: got %v, want %v", s.what, err, s.want)
		}
		if used := m.Used() / pageSize; used != s.used {
			t.Errorf("%s: %d pages used, want %d", s.what, used, s.used)
		}
	}
}

func TestMemErrors(t *testing.T) {
	m := NewMem("m", 1000)
	b := make([]byte, 10)
	for _, off := range []int64{-1, 991, 1 << 62} {
		for what, err := range map[string]error{
			"ReadAt":    m.ReadAt(b, off),
			"TryReadAt": m.TryReadAt(b, off),
			"WriteVec":  m.WriteVec([][]byte{b}, off),
			"Allocate":  m.Allocate(off, 10),
			"Discard":   m.Discard(off, 10),
		} {
			if !errors.Is(err, ErrOutOfRange) {
				t.Errorf("%s at %d: got %v", what, off, err)
			}
		}
	}
	if err := m.ReadAt(b, 990); err != nil {
		t.Error(err)
	}
	m.Corrupt(0, []byte{0, 0x81})
	if err := m.ReadAt(b, 0); err != nil || b[1] != 0x81 {
		t.Errorf("after damage: %v, %v", b, err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"ReadAt": m.ReadAt(b, 0), "WriteVec": m.WriteVec([][]byte{b}, 0),
		"Sync": m.Sync(), "Discard": m.Discard(0, 1), "Close": m.Close(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: got %v", what, err)
		}
	}
}

// BenchmarkMemCrash is what a crash state costs: 4 GiB, 64 unsynced records.
func BenchmarkMemCrash(b *testing.B) {
	rng := newRand(1)
	m := NewMem("m", 4<<30)
	record := make([]byte, 20<<10)
	for i := range 64 {
		if err := m.WriteVec([][]byte{record}, int64(i*len(record))); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		m.CrashClone(rng)
	}
}

func BenchmarkMemWrite(b *testing.B) {
	for name, m := range map[string]*Mem{"mem": NewMem("m", 1<<30), "durable": NewDurableMem("m", 1<<30)} {
		b.Run(name, func(b *testing.B) {
			bufs := [][]byte{make([]byte, 4<<10)}
			b.SetBytes(4 << 10)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := m.WriteVec(bufs, int64(i%4096)*4096); err != nil {
					b.Fatal(err)
				}
				if i%64 == 0 {
					if err := m.Sync(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
