package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"lsad/lsa"
	"lsad/memsvc"
	"lsad/server/admin"
)

// images are the images of VM memory as the administration sees them.
type images struct {
	*memsvc.Service
	server *server
	stats  *admin.IO
}

// openImages deletes what dead imports left. A server whose array cannot be changed now starts all the same.
func (s *server) openImages(ctx context.Context) error {
	s.images = memsvc.New(memsvc.Config{Store: imageStore{s.array}, Logger: s.log})
	s.ends.add(func() error {
		s.images.Close()
		return nil
	})
	if err := s.images.Sweep(ctx); err != nil {
		s.log.Error("what interrupted imports of images left behind could not be deleted; the next start tries again", "error", err)
	}
	return nil
}

// isVolume refuses images, which have commands of their own, and what is becoming one, where a volume or snapshot is
// wanted.
func (s *server) isVolume(name string) error {
	name, _, _ = strings.Cut(name, "@")
	v, err := s.array.Volume(name)
	if err != nil {
		return coded(err)
	}
	switch memsvc.Classify(name, v.Attributes) {
	case memsvc.ClassImage:
		return admin.Errorf(admin.CodeInvalid, "%s is an image of a VM's memory: use lsad image", name)
	case memsvc.ClassHidden:
		return admin.Errorf(admin.CodeNotFound, "volume %q not found", name)
	}
	return nil
}

// volumes are the array's volumes without its images.
func (s *server) volumes() []lsa.VolumeInfo {
	return slices.DeleteFunc(s.array.Volumes(), func(v lsa.VolumeInfo) bool {
		return memsvc.Classify(v.Name, v.Attributes) != memsvc.ClassVolume
	})
}

// Images implements admin.Images.
func (i *images) Images() []admin.Image {
	var all []admin.Image
	for _, info := range i.List() {
		all = append(all, i.imageOf(info))
	}
	return all
}

// Image implements admin.Images.
func (i *images) Image(name string) (admin.Image, error) {
	info, err := i.Get(name)
	if err != nil {
		return admin.Image{}, coded(err)
	}
	return i.imageOf(info), nil
}

func (i *images) imageOf(info memsvc.Info) admin.Image {
	m := info.Manifest
	out := admin.Image{
		Name: info.Name, Created: m.Created, Writable: info.Writable, Source: m.Source, Machine: m.Machine, Kernel: m.Kernel,
		RAMBytes: m.RAM(), StateBytes: m.State.Length, StoredBytes: info.StoredBytes, Parent: m.Parent, PageBytes: memsvc.PageSize,
		Pages:      admin.ImagePages{Total: m.Pages.Total, InUse: m.Pages.InUse, Free: m.Pages.Free, Zero: m.Pages.Zero, Shared: m.Pages.Shared},
		FreeElided: m.Elision.Free, Why: m.Elision.Why,
		Blocks: []admin.ImageBlock{}, Volumes: i.disks(m), Steps: []admin.ImageStep{}, Clients: append([]string{}, info.Clients...),
		WorkingSet: admin.WorkingSet{ChunkBytes: info.WorkingSet.ChunkBytes, Count: info.WorkingSet.Chunks},
	}
	if info.Writable {
		out.Created = m.ForkedAt
	}
	for _, b := range m.Blocks {
		block := admin.ImageBlock{Name: b.Name, OffsetBytes: b.Offset, SizeBytes: b.Size, PageBytes: max(b.PageSize, memsvc.PageSize), Ranges: []admin.ImageRange{}}
		for _, r := range b.Ranges {
			block.Ranges = append(block.Ranges, admin.ImageRange{GPA: r.GPA, SizeBytes: r.Size})
		}
		out.Blocks = append(out.Blocks, block)
	}
	for _, s := range m.Steps {
		out.Steps = append(out.Steps, admin.ImageStep(s))
	}
	return out
}

// RenameImage implements admin.Images.
func (i *images) RenameImage(ctx context.Context, from, to string) error {
	err := i.Rename(ctx, from, to)
	if err == nil {
		i.stats.Rename(from, to)
	}
	return i.did("renamed image "+from+" to "+to, err)
}

// DeleteImage implements admin.Images.
func (i *images) DeleteImage(ctx context.Context, name string) error {
	err := i.Delete(ctx, name)
	if err == nil {
		i.stats.Forget(name)
	}
	return i.did("deleted image "+name, err)
}

// ForkImage implements admin.Images.
func (i *images) ForkImage(ctx context.Context, image, name string) error {
	_, err := i.Fork(ctx, image, name)
	return i.did("forked image "+image+" as "+name, err)
}

func (i *images) did(what string, err error) error {
	if err == nil {
		i.server.log.Info(what)
	}
	return coded(err)
}

// ImportImage implements admin.Images.
func (i *images) ImportImage(ctx context.Context, q admin.ImportImage, progress func(admin.JobProgress)) (admin.Image, error) {
	o := memsvc.ImportOptions{Name: q.Name, KeepFree: q.KeepFree, Parent: q.Parent, Volumes: q.Volumes}
	info, err := withProgress(progress, func(p *memsvc.Progress) (memsvc.Info, error) {
		o.Progress = p
		return i.importFiles(ctx, q, o)
	})
	if err != nil {
		i.server.log.Error("an import failed", "image", q.Name, "error", err)
		return admin.Image{}, coded(err)
	}
	p := info.Manifest.Pages
	i.server.log.Info("imported image "+q.Name, "file", q.File, "pages_in_use", p.InUse, "pages_free", p.Free, "pages_zero", p.Zero, "why", info.Manifest.Elision.Why)
	return i.imageOf(info), nil
}

// withProgress runs work and calls progress now and then, from the caller's goroutine.
func withProgress[T any](progress func(admin.JobProgress), work func(*memsvc.Progress) (T, error)) (result T, err error) {
	var p memsvc.Progress
	done := make(chan struct{})
	go func() {
		defer close(done)
		result, err = work(&p)
	}()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return result, err
		case <-tick.C:
			if at := p.Position(); at.Step != "" {
				progress(admin.JobProgress{Step: at.Step, DoneBytes: at.Done, TotalBytes: at.Total})
			}
		}
	}
}

// WorkingSet implements admin.Images.
func (i *images) WorkingSet(name string) (admin.WorkingSet, error) {
	w, err := i.Service.WorkingSet(name)
	if err != nil {
		return admin.WorkingSet{}, coded(err)
	}
	return admin.WorkingSet{ChunkBytes: w.ChunkBytes, Count: len(w.Chunks), Chunks: w.Chunks}, nil
}

// SetWorkingSet implements admin.Images.
func (i *images) SetWorkingSet(ctx context.Context, name string, w admin.WorkingSet) (int, error) {
	kept, err := i.Service.SetWorkingSet(ctx, name, &memsvc.WorkingSet{ChunkBytes: w.ChunkBytes, Chunks: w.Chunks})
	return kept, coded(err)
}

// ImageCounters implements admin.Images.
func (i *images) ImageCounters() admin.ImageCounters {
	s := i.Stats()
	return admin.ImageCounters{
		Imports: s.Imports, Failed: s.ImportsFailed, Active: s.ImportsActive,
		StoredBytes: s.StoredBytes, FreeBytes: s.FreeBytes, ZeroBytes: s.ZeroBytes,
	}
}
