package mirrorfs

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestDecide(t *testing.T) {
	id, id2 := [16]byte{1}, [16]byte{2}
	with := func(s state) found { return found{state: &s, store: true} }
	good := with(state{id: id, generation: 5, clean: true})
	unclean := with(state{id: id, generation: 5})
	old := with(state{id: id, generation: 4, clean: true})
	alone := with(state{id: id, generation: 6, alone: true})
	oldAlone := with(state{id: id, generation: 5, alone: true})
	torn := with(state{id: id, generation: 5, rebuilding: true})
	foreign := with(state{id: id2, generation: 9})
	foreignTorn := with(state{id: id2, generation: 9, rebuilding: true})
	plain, empty := found{store: true}, found{}
	broken, lost := found{store: true, badState: true}, found{err: errors.New("gone")}

	for _, tt := range []struct {
		name    string
		a, b    found
		create  bool
		atLeast uint64
		want    []role
		err     error
	}{
		{name: "the same", a: good, b: good, want: []role{source, equal}},
		{name: "the same after a crash", a: unclean, b: unclean, want: []role{source, equal}},
		{name: "a copy that was taken live", a: unclean, b: good, want: []role{equal, source}},
		{name: "second out of date", a: alone, b: good, want: []role{source, rebuild}},
		{name: "first out of date", a: good, b: alone, want: []role{rebuild, source}},
		{name: "old copy put back", a: old, b: good, want: []role{rebuild, source}},
		{name: "crash between the two records", a: alone, b: with(state{id: id, generation: 7}), err: ErrSplit},
		{name: "rebuild cut short", a: torn, b: good, want: []role{rebuild, source}},
		{name: "empty", a: good, b: empty, want: []role{source, rebuild}},
		{name: "first empty", a: empty, b: alone, want: []role{rebuild, source}},
		{name: "lost", a: good, b: lost, want: []role{source, away}},
		{name: "first lost", a: lost, b: good, want: []role{away, source}},
		{name: "record damaged", a: good, b: broken, want: []role{source, rebuild}},
		{name: "converted", a: plain, b: empty, want: []role{source, rebuild}},
		{name: "converted, other order", a: empty, b: plain, want: []role{rebuild, source}},
		{name: "both lost", a: lost, b: lost, err: ErrNoStore},
		{name: "both empty", a: empty, b: empty, err: ErrNoStore},
		{name: "both torn", a: torn, b: torn, err: ErrNoStore},
		{name: "two plain", a: plain, b: plain, err: ErrForeign},
		{name: "a plain one beside a mirror's", a: good, b: plain, err: ErrForeign},
		{name: "a torn one of another", a: good, b: foreignTorn, err: ErrForeign},
		{name: "a plain one and a torn one", a: plain, b: torn, err: ErrForeign},
		{name: "foreign", a: good, b: foreign, err: ErrForeign},
		{name: "both alone", a: alone, b: oldAlone, err: ErrSplit},
		{name: "both alone, same generation", a: alone, b: alone, err: ErrSplit},
		{name: "one alone at the other's generation", a: oldAlone, b: good, err: ErrSplit},
		{name: "the newer one is lost", a: old, b: lost, atLeast: 5, err: ErrStale},
		{name: "the newest is there", a: good, b: lost, atLeast: 5, want: []role{source, away}},
		{name: "create", a: empty, b: empty, create: true, want: []role{source, equal}},
		{name: "create on a store", a: empty, b: plain, create: true, err: ErrNotEmpty},
		{name: "create on a state", a: broken, b: empty, create: true, err: ErrNotEmpty},
	} {
		c, err := decide([]found{tt.a, tt.b}, tt.create, tt.atLeast)
		if !errors.Is(err, tt.err) || err != nil && tt.err == nil {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
			continue
		}
		if err == nil && (!slices.Equal(c.roles, tt.want) || c.roles[c.source] != source) {
			t.Errorf("%s: roles %v, source %d; want %v", tt.name, c.roles, c.source, tt.want)
		}
	}
}

// TestDecideBadStates: where no state can be read, that is what is said, and not that there is no store.
func TestDecideBadStates(t *testing.T) {
	bad := found{dir: "d", badState: true, store: true}
	if _, err := decide([]found{bad, bad}, false, 0); !errors.Is(err, ErrNoStore) || !strings.Contains(err.Error(), stateFile+" is damaged") {
		t.Errorf("both states are damaged: %v", err)
	}
}

func TestDecideOne(t *testing.T) {
	good := found{state: &state{generation: 5}, store: true}
	for _, tt := range []struct {
		f   found
		err error
	}{{good, nil}, {found{store: true}, nil}, {found{}, ErrNoStore}, {found{state: &state{rebuilding: true}, store: true}, ErrNoStore}} {
		c, err := decide([]found{tt.f}, false, 0)
		if !errors.Is(err, tt.err) || err == nil && (tt.err != nil || c.source != 0) {
			t.Errorf("%+v: %v, %v; want %v", tt.f, c, err, tt.err)
		}
	}
}
