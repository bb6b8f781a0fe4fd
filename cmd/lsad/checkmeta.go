package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"lsad/internal/mirrorfs"
	"lsad/lsa"
)

// metaCheck is what lsad check found of the metadata directories.
type metaCheck struct {
	dir      string // the rest of the array is judged by the store in it
	problems []lsa.Problem
	advice   []string // what can be done about them
}

// checkMeta reads the metadata directories of a stopped array that it has two of, and changes nothing. A single one is
// left to the check of the array.
func (d *dataDir) checkMeta(ctx context.Context, devices deviceSet) (*metaCheck, error) {
	m, err := d.readMembers()
	if err != nil {
		return nil, err
	}
	var remembered []string
	if m != nil {
		remembered = m.Meta
	}
	dirs, mirrored := d.metaPlan(remembered)
	if !mirrored {
		return &metaCheck{dir: dirs[0]}, nil
	}
	o := mirrorOptions(dirs, m)
	if len(dirs) == 1 {
		side, err := mirrorfs.Newest(o)
		return &metaCheck{dir: side.Dir}, err
	}
	o.Look = func(side mirrorfs.Side) error {
		// What is wrong with the devices is said by the check of the array.
		bad, _ := lsa.LookAtStore(lsa.Options{Devices: devices, FS: side.FS, Meta: side.Dir})
		return bad
	}
	reports, err := mirrorfs.Examine(ctx, o)
	if err != nil {
		return nil, err
	}
	c := &metaCheck{}
	c.add(reports)
	return c, nil
}

func (c *metaCheck) add(reports []mirrorfs.Report) {
	i := slices.IndexFunc(reports, func(r mirrorfs.Report) bool { return r.Counts })
	counts, other := &reports[i], &reports[1-i]
	c.dir = counts.Dir
	for i := range reports {
		r := &reports[i]
		if r.Out != "" {
			c.problem(r.Dir, "it is left out, the other one counts alone: "+r.Out)
		}
		for _, what := range r.Damage {
			c.problem(r.Dir, strings.TrimPrefix(what, "metadata store "+r.Dir+": "))
		}
	}
	if len(c.problems) > 0 {
		c.advice = append(c.advice, advise(counts, other))
	}
}

func (c *metaCheck) problem(dir, what string) {
	c.problems = append(c.problems, lsa.Problem{Kind: "metadata", Where: dir, What: what})
}

// advise says what can be done where something is wrong with a metadata directory. It holds to what a start does.
func advise(counts, other *mirrorfs.Report) string {
	if len(counts.Damage) > 0 {
		if other.Out != "" {
			return fmt.Sprintf("metadata directory %s has the newest map, as far as it is intact, and %s is no copy of it: put %s back as it was when lsad last ran; "+
				"lsad serve starts without that only if what it needs is intact, or %s has the same blocks of the damaged tables", counts.Dir, other.Dir, counts.Dir, other.Dir)
		}
		// Told that the one counts for nothing, a start mends the tables of the other with what is intact of it.
		return fmt.Sprintf("metadata directories %s and %s are both damaged: copy them away as they are, then empty the file %s and start lsad serve: "+
			"where a block of a table is damaged in %[1]s it takes that of %[2]s, and makes %[2]s equal after that; if it does not start, put one of them back as it was when lsad last ran",
			counts.Dir, other.Dir, filepath.Join(other.Dir, mirrorState))
	}
	text := fmt.Sprintf("metadata directory %s is whole, all else was judged by it; ", counts.Dir)
	switch {
	case other.Equal:
		return text + fmt.Sprintf("the next lsad serve makes %s equal to it", other.Dir)
	case other.Out != "":
		return text + fmt.Sprintf("lsad serve goes on with it alone, until it is started with %s in reach again, or with --meta %s and another one", other.Dir, counts.Dir)
	}
	return text + fmt.Sprintf("lsad serve takes %s out of service when it reads what is damaged, and the start after that makes it equal; "+
		"to have that at the next start, move the content of %s away before", other.Dir, other.Dir)
}
