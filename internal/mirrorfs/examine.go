package mirrorfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Report is what was found of a side by who only reads.
type Report struct {
	Side
	Counts bool     // the store is to be judged by it
	Out    string   // why its content counts for nothing, "" if it should be the newest
	Damage []string // what is damaged in it, where it should be the newest
	Equal  bool     // the next Open makes it equal to the other, if that one can be used
	extent extent
	opens  error
}

// whole says that the side has the store as it should be.
func (r *Report) whole() bool { return r.Out == "" && len(r.Damage) == 0 }

// Newest is the directory whose content counts, for who only reads while nobody writes. Nothing is changed.
func Newest(o Options) (Side, error) {
	all := make([]found, len(o.Sides))
	for i, s := range o.Sides {
		all[i] = o.find(s)
	}
	c, err := decide(all, false, o.AtLeast)
	if err != nil {
		return Side{}, err
	}
	return o.Sides[c.source], nil
}

// find looks at a side as take does, and leaves it as it is.
func (o *Options) find(s Side) (f found) {
	f.dir = s.Dir
	if _, f.err = s.FS.Stat(s.Dir); f.err == nil {
		f.look(&side{Side: s})
	}
	return f
}

// Examine reads the whole store on each of two sides while nobody writes, and says what is wrong with which. The error
// says that it cannot be told which of them is right. Nothing is changed.
func Examine(ctx context.Context, o Options) ([]Report, error) {
	all, missing := make([]found, len(o.Sides)), make([]bool, len(o.Sides))
	for i, s := range o.Sides {
		all[i] = o.find(s)
		if errors.Is(all[i].err, fs.ErrNotExist) {
			if _, err := s.FS.Stat(s.FS.PathDir(s.Dir)); err == nil {
				missing[i], all[i].err = true, nil // Open makes it
			}
		}
	}
	c, err := decide(all, false, o.AtLeast)
	if err != nil {
		return nil, err
	}
	reports := make([]Report, len(o.Sides))
	for i := range reports {
		r := &reports[i]
		r.Side = o.Sides[i]
		switch c.roles[i] {
		case source, equal:
			if err := r.read(ctx); err != nil {
				return nil, err
			}
		default:
			r.Out, r.Equal = c.why[i], c.roles[i] == rebuild
			if missing[i] {
				r.Out = "missing"
			}
		}
	}
	unclean := false
	for i := range all {
		unclean = unclean || all[i].state == nil || !all[i].state.clean
	}
	if !unclean {
		shorter(reports)
	}
	for i := range reports {
		reports[i].ask(o.Look)
	}
	if err := settleReports(ctx, reports, c.source, unclean); err != nil {
		return nil, err
	}
	return reports, nil
}

// read opens the store of a side, and verifies every block of its tables.
func (r *Report) read(ctx context.Context) error {
	s := &side{Side: r.Side}
	var tables []string
	if r.extent, tables, r.opens = s.readStore(); r.opens != nil {
		return ctx.Err()
	}
	for _, name := range tables {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.checkTable(ctx, name); err != nil {
			r.damaged("%s: %s", name, oneLine(err))
		}
	}
	return ctx.Err()
}

func (r *Report) damaged(what string, args ...any) {
	r.Damage = append(r.Damage, fmt.Sprintf(what, args...))
}

// ask has look say what is wrong, where nothing was found yet, or the store does not open: it knows more of that.
func (r *Report) ask(look func(Side) error) {
	if r.Out != "" || r.opens == nil && len(r.Damage) > 0 {
		return
	}
	err := r.opens
	if look != nil {
		if looked := look(r.Side); looked != nil {
			err = looked
		}
	}
	if err != nil {
		r.damaged("%s", oneLine(err))
	}
}

// shorter finds a manifest that is damaged near its end, of sides that were closed in order and should be the same: by
// itself it passes for that of an older store.
func shorter(reports []Report) {
	for i := range reports {
		r, other := &reports[i], &reports[len(reports)-1-i]
		if r.Out == "" && other.Out == "" && r.opens == nil && other.opens == nil && other.extent.beyond(r.extent) {
			r.damaged("%s ends after %d intact records; %s has %d in %s", r.extent.manifest, r.extent.records, other.Dir, other.extent.records, other.extent.manifest)
		}
	}
}

// settleReports says which of the sides that should be the newest counts, and whether the next Open makes the other one
// equal to it. From one that is whole that is the choice of Open; else it is the one that Open would begin with.
func settleReports(ctx context.Context, reports []Report, source int, unclean bool) error {
	if len(reports) < 2 || reports[1-source].Out != "" {
		reports[source].Counts = true
		return nil
	}
	a, b := &reports[0], &reports[1]
	counts, other := a, b
	switch {
	case a.whole() != b.whole():
		if b.whole() {
			counts, other = b, a
		}
	case a.opens != nil && b.opens == nil, a.opens == nil && b.opens == nil && b.extent.beyond(a.extent):
		counts, other = b, a
	}
	counts.Counts = true
	if unclean { // all is compared, and what a crash leaves is no damage
		other.Equal = true
		return nil
	}
	list, err := compare(ctx, &side{Side: counts.Side}, &side{Side: other.Side}, false)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	other.Equal = err != nil || len(list) > 0
	if !other.Equal || !other.whole() {
		return nil
	}
	if err != nil {
		other.damaged("%s", oneLine(err))
		return nil
	}
	text := list[0].name
	if n := len(list) - 1; n > 0 {
		text += fmt.Sprintf(" and %d more files", n)
	}
	other.damaged("%s: not as in %s, although both have a whole store", text, counts.Dir)
	return nil
}

// oneLine is the text of an error without what Pebble adds for its own logs, and without the number that it gives a table
// which is read by itself.
func oneLine(err error) string {
	return asOneLine.Replace(err.Error())
}

var asOneLine = strings.NewReplacer("\n<corruption detail carrier>", "", "\n", "; ", "pebble: file 000000: ", "")
