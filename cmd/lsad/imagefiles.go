package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"lsad/memsvc"
	"lsad/server/admin"
)

// importFiles opens what a request names and imports it.
func (i *images) importFiles(ctx context.Context, q admin.ImportImage, o memsvc.ImportOptions) (info memsvc.Info, err error) {
	f, err := openAbsolute(q.File)
	if err != nil {
		return info, err
	}
	defer f.Close() // it was only read
	src, err := memsvc.OpenSource(f, q.Layout)
	if err != nil {
		return info, err
	}
	if q.State != "" {
		state, err := openState(q.State)
		if err != nil {
			return info, fmt.Errorf("device state: %w", err)
		}
		defer state.Close()
		o.State = state
	}
	switch {
	case q.QMP != "" && q.Paused:
		return info, fmt.Errorf("%w: either QEMU's monitor or the user says that the VM is paused, not both", memsvc.ErrInvalid)
	case q.QMP != "":
		monitor, err := memsvc.DialQMP(ctx, q.QMP)
		if err != nil {
			return info, err
		}
		defer monitor.Close()
		if src.Kind == "raw" {
			if err := monitor.Owns(ctx, f); err != nil {
				return info, err
			}
		}
		o.Paused = monitor.Check
	case q.Paused:
		o.Paused = func(context.Context) error { return nil }
	default:
		return info, fmt.Errorf("the VM is %w: memory that changes while it is read makes no image; give --qmp SOCKET, or --paused if you know that it is", memsvc.ErrRunning)
	}
	return i.Import(ctx, src, o)
}

// openAbsolute opens a file of this machine. Anything that could make the server wait, such as a pipe, is refused.
func openAbsolute(path string) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%w: %q is not an absolute path", memsvc.ErrInvalid, path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w: it is not a regular file", path, memsvc.ErrInvalid)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openState opens a file with a device state. One that is too large is refused before anything is read.
func openState(path string) (*os.File, error) {
	f, err := openAbsolute(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > memsvc.MaxState {
		err = fmt.Errorf("%s: %w: it has %d bytes, there can be %d", path, memsvc.ErrInvalid, info.Size(), int64(memsvc.MaxState))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// exportRun is how much of an image is read at a time, in bytes.
const exportRun = 1 << 20

// ExportImage implements admin.Images.
func (i *images) ExportImage(ctx context.Context, name string, w io.Writer) error {
	return i.opened(ctx, name, w, func(ctx context.Context, img *memsvc.Image) error {
		out, err := admin.NewImageStreamWriter(w, img.RAM())
		if err != nil {
			return err
		}
		e := exporter{ctx: ctx, img: img, out: out, buf: make([]byte, exportRun)}
		if err := img.Extents(0, img.RAM(), e.extent); err != nil {
			return err
		}
		if e.err != nil {
			return e.err
		}
		return out.End()
	})
}

// ImageState implements admin.Images.
func (i *images) ImageState(ctx context.Context, name string, w io.Writer) error {
	return i.opened(ctx, name, w, func(_ context.Context, img *memsvc.Image) error {
		if img.Manifest().State.Length == 0 {
			return fmt.Errorf("image %q: device state: %w: it was imported without", name, memsvc.ErrNotFound)
		}
		_, err := io.Copy(w, img.State())
		return err
	})
}

// opened opens an image for what is written to a client.
func (i *images) opened(ctx context.Context, name string, w io.Writer, write func(context.Context, *memsvc.Image) error) error {
	ctx, done, err := i.Job(ctx)
	if err != nil {
		return coded(err)
	}
	defer done()
	img, err := i.Open(name, "an export")
	if err != nil {
		return coded(err)
	}
	defer img.Close() // it was only read
	if d, ok := w.(interface{ SetWriteDeadline(time.Time) error }); ok {
		// A client that does not read must not keep the server from stopping.
		defer context.AfterFunc(ctx, func() { _ = d.SetWriteDeadline(time.Unix(1, 0)) })()
	}
	return coded(write(ctx, img))
}

// exporter writes the extents of an image.
type exporter struct {
	ctx context.Context
	img *memsvc.Image
	out *admin.ImageStreamWriter
	buf []byte
	off int64
	err error
}

// extent writes the next n bytes of the image unless they are a hole; it says whether to go on.
func (e *exporter) extent(n int64, hole bool) bool {
	end := e.off + n
	if hole {
		e.off = end
	}
	for e.off < end {
		if e.err = e.ctx.Err(); e.err != nil {
			return false
		}
		p := e.buf[:min(int64(len(e.buf)), end-e.off)]
		if e.err = e.img.ReadAt(p, e.off); e.err != nil {
			return false
		}
		if e.err = e.out.Run(e.off, p); e.err != nil {
			return false
		}
		e.off += int64(len(p))
	}
	return true
}
