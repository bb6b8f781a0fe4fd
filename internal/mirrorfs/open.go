package mirrorfs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Options of Open.
type Options struct {
	Sides  []Side // one or two
	Create bool   // the directories must be empty, or missing
	// AtLeast is the lowest generation that may count, 0 for any: what OnChange was last told.
	AtLeast uint64
	// OnChange, if not nil, is told each new generation, while the mirror is opened and when a side is dropped. It is a
	// further witness that a side is out of date, for when the other cannot be read; it must not call the FS.
	OnChange func(generation uint64)
	// Look, if not nil, says what is wrong with the store of a side beyond what keeps Pebble from opening it. It changes
	// nothing.
	Look   func(Side) error
	Logger *slog.Logger // nil discards
}

// Open opens the store's directories: it finds out which of them hold what, makes them equal, and marks them as in use.
// It fails if no side can be used, or if it cannot be told which side is right. A directory that is missing is made,
// unless what it should lie in is missing too.
func Open(ctx context.Context, o Options) (*FS, error) {
	if n := len(o.Sides); n != 1 && n != 2 {
		return nil, fmt.Errorf("metadata directories: there can be one or two, not %d", n)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m := &FS{log: o.Logger, onChange: o.OnChange, look: o.Look}
	for _, s := range o.Sides {
		s.Dir = s.FS.PathJoin(s.Dir) // clean, as the store's names will be
		m.sides = append(m.sides, &side{Side: s})
	}
	m.problems = make([]problem, len(m.sides))
	m.root = m.sides[0].Dir
	if err := m.open(ctx, &o); err != nil {
		for _, s := range m.sides {
			s.takeBack()
		}
		return nil, errors.Join(err, m.release())
	}
	return m, nil
}

func (m *FS) open(ctx context.Context, o *Options) error {
	all := make([]found, len(m.sides))
	for i, s := range m.sides {
		var err error
		if all[i], err = s.take(); err != nil {
			return err
		}
	}
	c, err := decide(all, o.Create, o.AtLeast)
	if err != nil {
		return err
	}
	if len(m.sides) == 2 {
		if err := m.join(ctx, &c, all); err != nil {
			return err
		}
	}
	m.live.Store(1 << c.source)
	for i, r := range c.roles {
		if r == equal || r == rebuild {
			m.live.Store(m.live.Load() | 1<<i)
		}
	}
	return m.begin(c.source, o.Create)
}

// join makes the side that is not the source equal to it. If that side cannot be, it is away.
func (m *FS) join(ctx context.Context, c *choice, all []found) error {
	i := 1 - c.source
	if c.roles[i] == equal && (all[0].store || all[1].store) {
		if err := m.settleEquals(ctx, c, all); err != nil {
			return err
		}
		i = 1 - c.source
	}
	if c.roles[i] == rebuild {
		if err := m.rebuild(ctx, c, i, false); err != nil {
			if ctx.Err() != nil || errors.Is(err, ErrUnfit) {
				return err
			}
			c.roles[i], c.why[i] = away, err.Error()
		}
	}
	if c.roles[i] == away {
		m.problems[i] = problem{since: time.Now(), err: errors.New(c.why[i])}
		m.log.Error("a metadata directory is out of service; the other one serves alone", "dir", m.sides[i].Dir, "error", c.why[i], "alone", m.sides[c.source].Dir)
	}
	return nil
}

// settleEquals compares two sides that should be the same, and picks the one whose content counts if they are not.
// After a stop that was not in order they differ in what was never synced, which is on either side as on a disk of its
// own.
func (m *FS) settleEquals(ctx context.Context, c *choice, all []found) error {
	unclean := !all[0].state.clean || !all[1].state.clean
	list, err := compare(ctx, m.sides[c.source], m.sides[1-c.source], unclean)
	if err == nil && len(list) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if c.source, err = mostWhole(m.sides); err != nil {
		return err
	}
	i := 1 - c.source
	c.roles[c.source], c.roles[i] = source, rebuild
	if c.why[i] = "damaged: its files are not those of the other"; unclean {
		c.why[i] = "it differs from the other, and was not stopped in order"
	}
	if err := m.rebuild(ctx, c, i, true); err != nil {
		if ctx.Err() != nil || errors.Is(err, ErrUnfit) {
			return err
		}
		c.roles[i], c.why[i] = away, err.Error()
		return nil
	}
	c.roles[i] = equal
	return nil
}

// rebuild makes side i equal to the source. It is marked first, so that nobody takes it for a whole one if that is cut
// short.
func (m *FS) rebuild(ctx context.Context, c *choice, i int, trusted bool) error {
	src, dst := m.sides[c.source], m.sides[i]
	mark := state{rebuilding: true}
	if src.state != nil {
		mark.id, mark.generation = src.state.id, src.state.generation
	}
	list, err := compare(ctx, src, dst, true)
	var mended []string
	if err == nil {
		list, mended, err = heal(ctx, src, dst, list, trusted)
	}
	if err != nil {
		return err
	}
	for _, name := range mended {
		m.log.Warn("a damaged metadata file was mended with what the other directory has of it", "file", src.path(name), "other", dst.Dir)
	}
	if err := m.fit(src); err != nil {
		return fmt.Errorf("metadata directory %s (%s): %w: %s: %w", dst.Dir, c.why[i], ErrUnfit, src.Dir, err)
	}
	m.log.Warn("making a metadata directory equal to the other", "dir", dst.Dir, "from", src.Dir, "reason", c.why[i], "files", len(list), "bytes", sizeOf(list))
	if src.state == nil {
		// A store that was alone until now: the mirror's name first, or the mark would be of no mirror.
		rand.Read(mark.id[:])
		if err := src.writeState(state{id: mark.id, generation: 1, alone: true}); err != nil {
			return err
		}
		mark.generation = 1
	}
	if err := dst.writeState(mark); err != nil {
		return err
	}
	begin, shown := time.Now(), time.Now()
	copies := copier{src: src, dst: dst, progress: func(done, total int64) {
		if time.Since(shown) > progressEvery {
			shown = time.Now()
			m.log.Info("making a metadata directory equal to the other", "dir", dst.Dir, "done_bytes", done, "total_bytes", total)
		}
	}}
	if err := copies.run(ctx, list); err != nil {
		return err
	}
	m.log.Warn("a metadata directory equals the other again", "dir", dst.Dir, "took", time.Since(begin).Round(time.Millisecond))
	return nil
}

// fit says whether the store of a side is one to be copied. Copied before that is known, a store that cannot be used would
// replace what may be the only other one.
func (m *FS) fit(src *side) error {
	_, err := src.checkStore()
	if m.look != nil { // it tells more
		if looked := m.look(src.Side); looked != nil {
			return looked
		}
	}
	return err
}

// progressEvery is how often the log tells how far a rebuild is.
const progressEvery = 5 * time.Second

// begin gives the mirror a new generation, on the source first: a side that does not get it is out of date. A new
// mirror needs all its sides.
func (m *FS) begin(src int, create bool) error {
	if s := m.sides[src].state; s != nil {
		m.id = s.id
	} else {
		rand.Read(m.id[:])
	}
	for _, s := range m.sides {
		if s.state != nil {
			m.generation = max(m.generation, s.state.generation)
		}
	}
	m.generation++
	next := state{id: m.id, generation: m.generation, alone: m.alone()}
	for _, i := range []int{src, 1 - src} {
		if i >= len(m.sides) || !m.isLive(i) {
			continue
		}
		if err := m.sides[i].writeState(next); err != nil {
			if create {
				return err
			}
			return m.drop(i, err)
		}
	}
	m.tell()
	return nil
}
