package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lsad/memsvc"
	"lsad/memsvc/qemu"
	"lsad/server/admin"
)

// RestoreImage implements admin.ImageVMs.
func (i *images) RestoreImage(ctx context.Context, name string, q admin.RestoreImage, progress func(admin.JobProgress)) (admin.Restored, error) {
	var last atomic.Pointer[qemu.Progress]
	tell := func(p admin.JobProgress) {
		progress(lastHeard(p, last.Load()))
	}
	r, err := withProgress(tell, func(show *memsvc.Progress) (restoration, error) {
		return i.restore(ctx, name, q, phases(show, orElse(q.To, q.QMP), &last))
	})
	if err != nil && r.endedWell(ctx, q) {
		r.MissingPages, err = r.progress.TotalPages-r.progress.SentPages, nil
	}
	if err != nil {
		err = fmt.Errorf("%w; %s", ofImage(name, err), restoredTo(r.progress, name, q, err))
		i.server.log.Error("a restore failed", "image", name, "to", q.To, "owner", r.Owner, "error", err)
		return admin.Restored{}, admin.Owned(coded(err), r.Owner)
	}
	i.server.log.Info("restored a VM from image "+name, "to", q.To, "to_run_seconds", r.ToRunSeconds, "took_seconds", r.TookSeconds,
		"data_pages", r.DataPages, "zero_pages", r.ZeroPages, "asked_for", r.Demanded, "losses", r.Losses, "missing_pages", r.MissingPages)
	return r.Restored, nil
}

// ofImage has an error name the image, if it does not yet, as those of the image itself do.
func ofImage(name string, err error) error {
	if text := fmt.Sprintf("image %q", name); strings.Contains(err.Error(), text) {
		return err
	}
	return fmt.Errorf("image %q: %w", name, err)
}

// restoration is a restore, successful or not.
type restoration struct {
	admin.Restored
	progress qemu.Progress
}

// endedWell says whether a restore was ended as it has to be: without fill it has no other end.
func (r *restoration) endedWell(ctx context.Context, q admin.RestoreImage) bool {
	return q.NoFill && r.progress.Owner == qemu.Destination && r.progress.Ran && errors.Is(context.Cause(ctx), admin.ErrInterrupted)
}

func restoredOf(p qemu.Progress) admin.Restored {
	return admin.Restored{
		Owner: string(p.Owner), DataPages: p.DataPages, ZeroPages: p.ZeroPages, SentBytes: p.Bytes, Demanded: p.Demanded,
		Losses: p.Losses, ToRunSeconds: p.ToRun.Seconds(), TookSeconds: p.Took.Seconds(),
	}
}

func (i *images) restore(ctx context.Context, name string, q admin.RestoreImage, tell func(qemu.Progress)) (restoration, error) {
	none := restoration{progress: qemu.Progress{Owner: qemu.Source}}
	if q.Resume {
		none.progress.Owner, none.progress.Ran = qemu.Destination, true
	}
	none.Owner = string(none.progress.Owner)
	ctx, done, err := i.Job(ctx)
	if err != nil {
		return none, err
	}
	defer done()
	img, err := i.Open(name, "a restore to "+orElse(q.To, q.QMP))
	if err != nil {
		return none, err
	}
	defer img.Close() // it was only read
	if !q.Resume && !q.WithoutVolumes {
		err := disksOf(name, img.Manifest().Parent, i.disks(img.Manifest()), func(other string) string {
			return "lsad image restore " + other + " " + orElse(flagged("--qmp", q.QMP), flagged("--to", q.To))
		})
		if err != nil {
			return none, err
		}
	}
	o := qemu.RestoreOptions{
		RAM: imageRAM{img}, Resume: q.Resume, NoFill: q.NoFill, Rate: q.BytesPerSecond,
		Patience: time.Duration(q.PatienceSeconds * float64(time.Second)), Progress: tell,
	}
	if o.State, o.Zero, err = vmOf(img); err != nil {
		return none, err
	}
	if q.PageBytes != 0 {
		o.HugePages = map[string]int64{largestBlock(o.State): q.PageBytes}
	}
	order := i.order(name)
	o.Order = order
	keeper := i.keepOrder(ctx, name, &o, q.RecordSeconds)
	d, err := connect(ctx, q.To, q.QMP, q.Resume)
	if err != nil {
		return none, err
	}
	defer d.close()
	o.Dial, o.Runs = d.dial, d.runs()
	p, err := qemu.Restore(ctx, o)
	d.leave(ctx, p, err)
	r := restoration{restoredOf(p), p}
	r.Prefetched, r.Recorded = len(order.Chunks), keeper.wait()
	return r, err
}

func flagged(flag, value string) string {
	if value == "" {
		return ""
	}
	return flag + " " + quote(value)
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// order is the working set that was recorded with an image. Without it a restore is as good, only with more waiting.
func (i *images) order(name string) qemu.Order {
	w, err := i.Service.WorkingSet(name)
	if err != nil {
		i.server.log.Error("the working set of an image cannot be used", "image", name, "error", err)
		return qemu.Order{}
	}
	return qemu.Order{ChunkBytes: w.ChunkBytes, Chunks: w.Chunks}
}

// orderKeeper keeps a recorded order with its image, beside the restore that goes on.
type orderKeeper struct {
	wg   sync.WaitGroup
	kept int // after wg
}

func (k *orderKeeper) wait() int {
	k.wg.Wait()
	return k.kept
}

// keepOrder has a restore record what its VM touches.
func (i *images) keepOrder(ctx context.Context, name string, o *qemu.RestoreOptions, seconds float64) *orderKeeper {
	k := &orderKeeper{}
	ctx = context.WithoutCancel(ctx) // an interrupted restore has recorded something, too
	o.Record = time.Duration(seconds * float64(time.Second))
	o.Recorded = func(order qemu.Order) {
		if len(order.Chunks) == 0 {
			return // nobody ran, or it touched nothing: what was known before is better
		}
		k.wg.Go(func() {
			kept, err := i.Service.SetWorkingSet(ctx, name, &memsvc.WorkingSet{ChunkBytes: order.ChunkBytes, Chunks: order.Chunks})
			if err != nil {
				i.server.log.Error("a recorded working set could not be kept", "image", name, "error", err)
			}
			k.kept = kept
		})
	}
	return k
}

// vmOf reads what an image has of a VM besides its pages, and which of those are holes.
func vmOf(img *memsvc.Image) (*qemu.State, *qemu.PageSet, error) {
	m := img.Manifest()
	if m.Source != "qemu" {
		return nil, nil, fmt.Errorf("%w: it was made from a file and has no device state of QEMU; use lsad image ingest for a VM that is to be resumed", memsvc.ErrInvalid)
	}
	raw, err := io.ReadAll(img.State())
	if err != nil {
		return nil, nil, err
	}
	s, err := qemu.UnmarshalState(bytes.NewReader(raw))
	if err != nil {
		return nil, nil, err
	}
	if s.Size() != img.RAM() {
		return nil, nil, fmt.Errorf("%w: the device state speaks of %d bytes of RAM, the image has %d", memsvc.ErrDamaged, s.Size(), img.RAM())
	}
	zero, off := qemu.NewPageSet(s.Pages()), int64(0)
	err = img.Extents(0, img.RAM(), func(n int64, hole bool) bool {
		if hole {
			zero.AddRange((off+qemu.PageSize-1)/qemu.PageSize, (off+n)/qemu.PageSize)
		}
		off += n
		return true
	})
	return s, zero, err
}

func largestBlock(s *qemu.State) string {
	largest := s.Blocks[0]
	for _, b := range s.Blocks {
		if b.Size > largest.Size {
			largest = b
		}
	}
	return largest.Name
}

// imageRAM is an image as io.ReaderAt.
type imageRAM struct{ *memsvc.Image }

func (r imageRAM) ReadAt(p []byte, off int64) (int, error) {
	if err := r.Image.ReadAt(p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}
