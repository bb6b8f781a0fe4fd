package mirrorfs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// errOnlyGood: a table is damaged on the side whose content counts, and the other side has intact blocks of a table of
// that name, of which it cannot be told that they are the same. To copy over them could be to lose the last good ones.
var errOnlyGood = errors.New("the other directory may have the only good copy of it")

// errNoIndex: where the blocks of a table are, neither side can tell. After a loss of power such tables are left over.
var errNoIndex = errors.New("its index is damaged on both sides")

// heal mends damaged tables of the source with intact blocks of the other side. It returns what still differs: what is
// intact on the source, or on neither side. With trusted both are of the same generation, so tables of one name are the
// same; else only a checksum that both have says so, since a side that missed changes may have another table of that
// name.
func heal(ctx context.Context, src, dst *side, list []difference, trusted bool) (left []difference, mended []string, err error) {
	for _, d := range list {
		if d.gone || !isTable(d.name) || !dst.has(d.name) || src.checkTable(ctx, d.name) == nil {
			left = append(left, d)
			continue
		}
		switch err := mend(ctx, src, dst, d.name, trusted); {
		case errors.Is(err, errNoIndex):
			left = append(left, d)
			continue
		case err != nil:
			return nil, nil, fmt.Errorf("mend %s: %w", src.path(d.name), err)
		}
		mended = append(mended, d.name)
		if dst.checkTable(ctx, d.name) != nil {
			left = append(left, d)
		}
	}
	return left, mended, src.syncDir()
}

func (s *side) has(name string) bool {
	_, err := s.FS.Stat(s.path(name))
	return err == nil
}

// mend makes a table of the source anew, of the intact blocks that either side has of it.
func mend(ctx context.Context, src, dst *side, name string, trusted bool) error {
	parts, base, err := layoutOf(ctx, src, dst, name)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoIndex, err)
	}
	var from [2]vfs.File
	for i, s := range []*side{src, dst} {
		if from[i], err = s.FS.Open(s.path(name), vfs.SequentialReadsOption); err != nil {
			return err
		}
		defer from[i].Close()
	}
	return src.replace(name, func(to vfs.File) error {
		for _, p := range parts {
			if err := ctx.Err(); err != nil {
				return err
			}
			b, err := p.best(from[0], from[1], base, trusted)
			if err != nil {
				return err
			}
			if _, err := to.Write(b); err != nil {
				return err
			}
		}
		return nil
	})
}

// part is a block of a table with its trailer, or what lies between blocks and behind them.
type part struct {
	off, size int64
	block     bool
}

// layoutOf finds the parts of a table, as the side says whose index is intact: 0 for the source, 1 for the other.
func layoutOf(ctx context.Context, src, dst *side, name string) (parts []part, base int, err error) {
	var errs [2]error
	for i, s := range []*side{src, dst} {
		if parts, errs[i] = s.parts(ctx, name); errs[i] == nil {
			return parts, i, nil
		}
	}
	return nil, 0, errors.Join(errs[:]...)
}

func (s *side) parts(ctx context.Context, name string) ([]part, error) {
	f, err := s.FS.Open(s.path(name))
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	o := &pebble.Options{}
	o.EnsureDefaults()
	r, err := sstable.NewReader(ctx, readable, o.MakeReaderOptions())
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	l, err := r.Layout()
	size := readable.Size()
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	handles := append([]block.Handle{l.TopIndex, l.RangeDel, l.RangeKey, l.ValueIndex, l.Properties, l.MetaIndex, l.BlobReferenceIndex}, l.Index...)
	handles = append(handles, l.ValueBlock...)
	for _, h := range l.Data {
		handles = append(handles, h.Handle)
	}
	for _, h := range l.Filter {
		handles = append(handles, h.Handle)
	}
	slices.SortFunc(handles, func(a, b block.Handle) int { return cmp.Compare(a.Offset, b.Offset) })
	var parts []part
	at := int64(0)
	upTo := func(off int64) {
		if off > at {
			parts, at = append(parts, part{at, off - at, false}), off
		}
	}
	for _, h := range handles {
		if h.Length > 0 {
			upTo(int64(h.Offset))
			parts = append(parts, part{at, int64(h.Length) + blockTrailer, true})
			at += int64(h.Length) + blockTrailer
		}
	}
	upTo(size)
	return parts, nil
}

// best reads a part of the first file, or of the second one where only that has it intact.
func (p part) best(first, second vfs.File, base int, trusted bool) ([]byte, error) {
	a, errA := p.read(first)
	b, errB := p.read(second)
	if !p.block {
		if base == 1 {
			return b, errB
		}
		return a, errA
	}
	goodA, goodB := errA == nil && isBlock(a), errB == nil && isBlock(b)
	same := errA == nil && errB == nil && bytes.Equal(a[len(a)-4:], b[len(b)-4:])
	switch {
	case goodB && !same && !trusted:
		return nil, fmt.Errorf("block at %d: %w", p.off, errOnlyGood)
	case goodB && !goodA, errA != nil:
		return b, errB
	}
	return a, nil
}

func (p part) read(f vfs.File) ([]byte, error) {
	b := make([]byte, p.size)
	n, err := f.ReadAt(b, p.off)
	if n == len(b) {
		err = nil
	}
	return b, err
}
