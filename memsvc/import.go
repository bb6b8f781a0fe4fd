package memsvc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"lsad/kvmhook/guestmem"
)

// ImportOptions of Import.
type ImportOptions struct {
	Name     string
	State    io.Reader // the VMM's device state; nil for none
	KeepFree bool      // store free pages too
	Parent   string    // an earlier image of the same VM: what did not change is shared with it
	Volumes  []string  // of the VM, to take snapshots of
	Machine  string
	// Paused proves that the VM is paused: it is asked before the first byte is read and after the last, and its
	// error ends the import. Required.
	Paused   func(ctx context.Context) error
	Progress *Progress // nil: nobody looks
}

// Import makes an image of the memory of a paused VM. If it fails or ctx ends, nothing of it is left.
func (s *Service) Import(ctx context.Context, src *Source, o ImportOptions) (info Info, err error) {
	ctx, done, err := s.Job(ctx)
	if err != nil {
		return Info{}, err
	}
	defer done()
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	if err := o.Paused(ctx); err != nil {
		return Info{}, fmt.Errorf("import image %q: %w", o.Name, err)
	}
	w, err := s.Begin(ctx, Spec{Name: o.Name, Source: src.Kind, Machine: o.Machine, Blocks: src.Blocks, Parent: o.Parent, Volumes: o.Volumes})
	if err != nil {
		return Info{}, err
	}
	i := &importing{s: s, w: w, src: src, o: &o}
	if err := i.run(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Info{}, errors.Join(fmt.Errorf("import image %q: %w", o.Name, err), w.Abort())
	}
	return w.Seal(ctx, i.summary())
}

// importing is one import under way.
type importing struct {
	s      *Service
	w      *Writer
	src    *Source
	o      *ImportOptions
	data   []extent
	free   *guestmem.PageSet // nil: none is known
	spans  []span            // where its pages are; in order
	report guestmem.Report
	pages  PageCounts
}

func (i *importing) run(ctx context.Context) error {
	if len(i.o.Volumes) > 0 {
		i.o.Progress.Begin("snapshots of volumes", 0)
		if err := i.w.Snapshots(ctx); err != nil {
			return err
		}
	}
	var err error
	if i.data, err = i.src.extents(); err != nil {
		return err
	}
	if err := i.findFree(ctx); err != nil {
		return err
	}
	i.w.manifest.Blocks = i.src.Blocks // the layout may have been found by trying
	i.o.Progress.Begin("copy memory", i.src.Size())
	if i.pages, err = copyMemory(ctx, i); err != nil {
		return err
	}
	if i.o.State != nil {
		i.o.Progress.Begin("copy device state", 0)
		if err := i.w.WriteState(ctx, i.o.State); err != nil {
			return err
		}
	}
	if err := i.o.Paused(ctx); err != nil {
		return fmt.Errorf("after its memory was read: %w", err)
	}
	i.o.Progress.Begin("make durable", 0)
	if err := i.w.volume.Flush(); err != nil {
		return err
	}
	return ctx.Err() // who cancelled it by now does not find an image
}

// findFree asks which pages are free, for each layout that is possible until one is trusted.
func (i *importing) findFree(ctx context.Context) error {
	if i.o.KeepFree {
		i.report.Why = "free pages were to be kept"
		return nil
	}
	i.o.Progress.Begin("find free pages", 0)
	m, err := i.src.mapAll(i.data)
	if err != nil {
		return err
	}
	for n := -1; n < len(i.src.Layouts) && i.free == nil && err == nil; n++ {
		blocks := slices.Clone(i.src.Blocks)
		if n >= 0 {
			blocks[0].Ranges = i.src.Layouts[n]
		}
		err = i.findFreeAt(ctx, m, blocks)
	}
	return errors.Join(err, m.close())
}

// findFreeAt supposes that the blocks are where they say. The first report is kept unless a later one is better.
func (i *importing) findFreeAt(ctx context.Context, m *mapping, blocks []Block) error {
	memory, spans, err := m.guest(blocks)
	if errors.Is(err, guestmem.ErrMemory) {
		i.report.Why = "where the memory is in the guest is not known"
		return nil
	}
	if err != nil {
		return err
	}
	set, report, err := i.s.freePages(ctx, memory, guestmem.Options{CR3: i.src.CR3})
	if err != nil {
		return err
	}
	if set != nil || i.report.Why == "" {
		i.report = report
	}
	if set != nil {
		i.free, i.spans, i.src.Blocks = set, spans, blocks
	}
	return nil
}

func (i *importing) summary() Summary {
	return Summary{
		Kernel: plain(i.report.Kernel), Pages: i.pages,
		Elision: Elision{Free: i.free != nil, Why: plain(i.report.Why)},
		Steps:   i.o.Progress.Finish(),
	}
}

// plain makes a text for people of one that may come from a guest: it cannot do anything to a terminal, and has an end.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText-3], "") + "..."
	}
	return s
}
