package mirrorfs

import (
	"errors"
	"fmt"
)

// Why a mirror is not opened.
var (
	// ErrNoStore: there is no metadata store in the directories.
	ErrNoStore = errors.New("no metadata store")
	// ErrNotEmpty: a new store takes empty directories.
	ErrNotEmpty = errors.New("not empty")
	// ErrForeign: the directories do not belong together.
	ErrForeign = errors.New("of another metadata store")
	// ErrSplit: each side went on without the other.
	ErrSplit = errors.New("each was used without the other")
	// ErrStale: the only side that can be read is not the newest there was.
	ErrStale = errors.New("out of date")
	// ErrUnfit: the side whose content counts cannot be used, so the other one is left as it is.
	ErrUnfit = errors.New("no copy is made of a store that cannot be used")
)

// role is what becomes of a side when the mirror is opened.
type role int

const (
	away    role = iota // it cannot be used
	source              // its content counts
	equal               // it should have the same content
	rebuild             // it is made anew from the source
)

// choice is the roles of the sides, and why.
type choice struct {
	source int
	roles  []role
	why    []string // by side, for the log
}

// decide says what to do with what was found. atLeast is the lowest generation that may count.
func decide(f []found, create bool, atLeast uint64) (choice, error) {
	c := choice{source: -1, roles: make([]role, len(f)), why: make([]string, len(f))}
	if create {
		return c.fresh(f)
	}
	if err := c.pick(f); err != nil {
		return c, err
	}
	if s := f[c.source].state; s != nil && s.generation < atLeast {
		return c, fmt.Errorf("metadata directory %s: %w: its generation is %d, the array has seen %d; give the other directory too",
			f[c.source].dir, ErrStale, s.generation, atLeast)
	}
	c.roles[c.source] = source
	for i := range f {
		if i == c.source || c.roles[i] == equal {
			continue
		}
		if err := c.other(&f[c.source], &f[i], i); err != nil {
			return c, err
		}
	}
	return c, nil
}

// fresh is the choice for a store that is to be created.
func (c *choice) fresh(f []found) (choice, error) {
	for i := range f {
		if f[i].err != nil {
			return *c, fmt.Errorf("metadata directory %s: %w", f[i].dir, f[i].err)
		}
		if !f[i].empty() {
			return *c, fmt.Errorf("metadata directory %s: %w: a new array takes empty ones", f[i].dir, ErrNotEmpty)
		}
		c.roles[i] = equal
	}
	c.source, c.roles[0] = 0, source
	return *c, nil
}

// pick finds the source, and the side that equals it.
func (c *choice) pick(f []found) error {
	var counting, plain []int
	var errs []error
	for i := range f {
		switch {
		case f[i].counts():
			counting = append(counting, i)
		case f[i].plain():
			plain = append(plain, i)
		case f[i].err != nil:
			errs = append(errs, fmt.Errorf("metadata directory %s: %w", f[i].dir, f[i].err))
		case f[i].badState:
			errs = append(errs, fmt.Errorf("metadata directory %s: its file %s is damaged, and does not tell whether the rest is the newest; if it is surely that, remove the file", f[i].dir, stateFile))
		}
	}
	switch {
	case len(counting) == 2:
		return c.pickNewer(f)
	case len(counting) == 1:
		c.source = counting[0]
	case len(plain) == 2:
		return fmt.Errorf("metadata directories %s and %s: %w: each has a store that knows nothing of the other; empty the one that is not wanted", f[0].dir, f[1].dir, ErrForeign)
	case len(plain) == 1:
		c.source = plain[0]
	default:
		return errors.Join(append(errs, fmt.Errorf("metadata directory %s: %w is in it that can be read", dirs(f), ErrNoStore))...)
	}
	return nil
}

func (c *choice) pickNewer(f []found) error {
	a, b := f[0].state, f[1].state
	newer, older := 0, 1
	if b.generation > a.generation {
		newer, older = 1, 0
	}
	n, o := f[newer].state, f[older].state
	switch {
	case a.id != b.id:
		return fmt.Errorf("metadata directories %s and %s: %w; empty the one that is not of this array", f[0].dir, f[1].dir, ErrForeign)
	case o.alone || n.alone && n.generation == o.generation:
		return fmt.Errorf("metadata directories %s and %s: %w; which one is right cannot be told: move the other's content away and start again", f[0].dir, f[1].dir, ErrSplit)
	case n.generation > o.generation:
		c.source = newer
	default:
		if c.source = 0; b.clean && !a.clean {
			c.source = 1
		}
		c.roles[1-c.source] = equal
	}
	return nil
}

// other is the choice for a side that is neither the source nor its equal.
func (c *choice) other(src, f *found, i int) error {
	switch {
	case f.err != nil:
		c.roles[i], c.why[i] = away, f.err.Error()
		return nil
	case f.empty():
		c.why[i] = "empty"
	case f.badState:
		c.why[i] = "its state is damaged"
	case f.plain(), src.state == nil, f.state.id != src.state.id:
		return fmt.Errorf("metadata directory %s: %w than %s; empty it if it may be overwritten", f.dir, ErrForeign, src.dir)
	case f.state.rebuilding:
		c.why[i] = "a rebuild of it was cut short"
	default:
		c.why[i] = fmt.Sprintf("out of date: of generation %d, the other of %d", f.state.generation, src.state.generation)
	}
	c.roles[i] = rebuild
	return nil
}

func dirs(f []found) string {
	text := f[0].dir
	for i := range f[1:] {
		text += " or " + f[i+1].dir
	}
	return text
}
