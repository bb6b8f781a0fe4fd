package mirrorfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// copyChunk is how many bytes are read at once, on each side.
const copyChunk = 256 << 10

// difference is a file that is not the same on both sides.
type difference struct {
	name string
	size int64 // on the source
	gone bool  // the source does not have it
}

// compare lists what differs between two sides. The content of tables is looked at only with contents: they are large,
// and change only by damage.
func compare(ctx context.Context, src, dst *side, contents bool) ([]difference, error) {
	have, err := src.files()
	if err != nil {
		return nil, err
	}
	other, err := dst.files()
	if err != nil {
		return nil, err
	}
	slices.Sort(have)
	var list []difference
	for _, name := range have {
		info, err := src.FS.Stat(src.path(name))
		if err != nil {
			return nil, err
		}
		same := false
		if d, err := dst.FS.Stat(dst.path(name)); err == nil && d.Size() == info.Size() {
			if same = isTable(name) && !contents; !same {
				if same, err = sameContent(ctx, src, dst, name, nil); err != nil {
					return nil, err
				}
			}
		}
		if !same {
			list = append(list, difference{name: name, size: info.Size()})
		}
	}
	for _, name := range other {
		if !slices.Contains(have, name) {
			list = append(list, difference{name: name, gone: true})
		}
	}
	return list, nil
}

// sameContent compares a file of two sides. A part that cannot be read on either side counts as a difference. pace, if
// not nil, is called with the bytes read from one side.
func sameContent(ctx context.Context, a, b *side, name string, pace func(int) error) (bool, error) {
	fa, err := a.FS.Open(a.path(name), vfs.SequentialReadsOption)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := b.FS.Open(b.path(name), vfs.SequentialReadsOption)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	pa, pb := make([]byte, copyChunk), make([]byte, copyChunk)
	for off := int64(0); ; off += copyChunk {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		na, errA := fa.ReadAt(pa, off)
		nb, errB := fb.ReadAt(pb, off)
		if na != nb || !bytes.Equal(pa[:na], pb[:nb]) || !isEnd(errA) || !isEnd(errB) {
			return false, nil
		}
		if na < copyChunk {
			return true, nil
		}
		if pace != nil {
			if err := pace(na); err != nil {
				return false, err
			}
		}
	}
}

func isEnd(err error) bool { return err == nil || errors.Is(err, io.EOF) }

// sizeOf adds up what is to be copied.
func sizeOf(list []difference) (total int64) {
	for _, d := range list {
		total += d.size
	}
	return total
}

// copier makes one side equal to another.
type copier struct {
	src, dst *side
	progress func(done, total int64)
	done     int64
	total    int64
	buf      []byte
}

// run makes dst equal in the files that differ.
func (c *copier) run(ctx context.Context, list []difference) error {
	c.total = sizeOf(list)
	c.buf = make([]byte, copyChunk)
	for _, d := range list {
		if err := c.one(ctx, d); err != nil {
			return fmt.Errorf("make %s equal to %s: %w", c.dst.path(d.name), c.src.path(d.name), err)
		}
	}
	return c.dst.syncDir()
}

func (c *copier) one(ctx context.Context, d difference) error {
	if !d.gone {
		return c.file(ctx, d.name)
	}
	err := c.dst.FS.Remove(c.dst.path(d.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// copyName is what a copy is called until it is whole.
const copyName = "mirror.copy"

func (c *copier) file(ctx context.Context, name string) error {
	src, err := c.src.FS.Open(c.src.path(name), vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	defer src.Close()
	return c.dst.replace(name, func(dst vfs.File) error { return c.content(ctx, src, dst) })
}

// replace makes a file anew: it is there as a whole, or as it was.
func (s *side) replace(name string, write func(vfs.File) error) error {
	f, err := s.FS.Create(s.path(copyName), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.FS.Rename(s.path(copyName), s.path(name))
	}
	if err != nil {
		return errors.Join(err, s.FS.Remove(s.path(copyName)))
	}
	return nil
}

func (c *copier) content(ctx context.Context, src io.Reader, dst io.Writer) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := src.Read(c.buf)
		if n > 0 {
			if _, err := dst.Write(c.buf[:n]); err != nil {
				return err
			}
			c.done += int64(n)
			c.progress(c.done, c.total)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
