package membench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"lsad/internal/nbdclient"
	"lsad/kvmhook"
	"lsad/kvmhook/filesource"
	"lsad/kvmhook/localsource"
	"lsad/kvmhook/nbdsource"
	"lsad/kvmhook/vmmtest"
)

// Setup is what is measured: one image, as a file and as an export of an lsad.
type Setup struct {
	Dir    string // for sockets
	File   string // of the image's memory; it should be in the page cache
	Size   int64  // bytes
	Target nbdclient.Target
	Locate localsource.Locate // where its blocks lie
}

// patience is how long one order to the VMM may take.
const patience = 5 * time.Minute

// Result is one measurement.
type Result struct {
	Name   string
	Answer vmmtest.Answer
	Status kvmhook.Status // of the hook, where there was one
	Err    error          // why there is no result
}

// server is a page server for one VMM.
type server interface {
	serve(l *net.UnixListener) error // returns once the VMM has shaken hands, or soon will
	status() kvmhook.Status
	close() error
}

func (b *bare) status() kvmhook.Status { return kvmhook.Status{} }

// hooked is the hook in this process.
type hooked struct {
	src    closer
	hook   *kvmhook.Hook
	cancel context.CancelFunc
	done   chan error
}

// closer is a source that can be closed.
type closer interface {
	kvmhook.Source
	io.Closer
}

// open the image.
func (s *Setup) open(ctx context.Context, from source) (closer, error) {
	if from == mappedFile {
		return filesource.Open(s.File)
	}
	o := nbdsource.Options{Logger: slog.New(slog.DiscardHandler)}
	n, err := nbdsource.Open(ctx, s.Target, o)
	if err != nil || from == overNBD {
		return n, err
	}
	return localsource.New(n, o, s.Locate), nil
}

func (s *Setup) newHooked(ctx context.Context, from source, o kvmhook.Options) (*hooked, error) {
	src, err := s.open(ctx, from)
	if err != nil {
		return nil, err
	}
	o.Source = src
	h, err := kvmhook.New(ctx, o)
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return &hooked{src: src, hook: h, done: make(chan error, 1)}, nil
}

func (h *hooked) serve(l *net.UnixListener) error {
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	go func() { h.done <- h.hook.Serve(ctx, l) }()
	return nil
}

func (h *hooked) status() kvmhook.Status { return h.hook.Status() }

func (h *hooked) close() (err error) {
	if h.cancel != nil {
		h.cancel()
		if err = <-h.done; errors.Is(err, context.Canceled) {
			err = nil
		}
	}
	return errors.Join(err, h.src.Close())
}

// Run has a VMM with pages of page bytes measure what o says, served by s; nil for a plain mapping of the file.
func (s *Setup) run(srv server, page int64, orders ...vmmtest.Order) (r Result) {
	fail := func(err error) Result { return Result{Err: errors.Join(err, r.Err)} }
	v, err := vmmtest.Start()
	if err != nil {
		return fail(err)
	}
	defer v.Kill()
	begin := vmmtest.Order{Op: vmmtest.OpMap, File: s.File, Regions: []vmmtest.Region{{Size: s.Size, Page: page}}}
	if srv != nil {
		begin.Version, begin.Socket = 3, filepath.Join(s.Dir, "vmm.sock")
		os.Remove(begin.Socket)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: begin.Socket})
		if err != nil {
			return fail(errors.Join(err, srv.close()))
		}
		defer l.Close()
		defer func() { r.Err = errors.Join(r.Err, srv.close()) }() // when the VMM is no more
		defer v.Kill()
		shaken := make(chan error, 1)
		go func() { shaken <- srv.serve(l) }()
		if _, err := v.Do(begin, patience); err != nil {
			return fail(err)
		}
		if err := <-shaken; err != nil {
			return fail(err)
		}
	} else if _, err := v.Do(begin, patience); err != nil {
		return fail(err)
	}
	for _, o := range orders {
		if r.Answer, err = v.Do(o, patience); err != nil {
			return fail(err)
		}
	}
	if srv != nil {
		r.Status = srv.status()
	}
	return r
}

// mapFile maps the image and reads it, so that nothing waits for a disk.
func (s *Setup) mapFile() ([]byte, error) {
	f, err := os.Open(s.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return unix.Mmap(int(f.Fd()), 0, int(s.Size), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
}

// source is where the same content comes from.
type source string

const (
	mappedFile source = "mapped file"
	overNBD    source = "image over NBD"
	byName     source = "image by name"
)

var sources = []source{mappedFile, byName, overNBD}

// Faults measures the service of single faults: touches of 4 KiB pages at random, without a background fill.
func (s *Setup) Faults(ctx context.Context, touches int, seed uint64) ([]Result, error) {
	file, err := s.mapFile()
	if err != nil {
		return nil, err
	}
	defer unix.Munmap(file)
	o := vmmtest.Order{Op: vmmtest.OpMeasure, Last: int(s.Size / vmmtest.SmallPage), Seed: seed, Some: touches}
	least := s.run(&bare{file: file, chunk: vmmtest.SmallPage}, vmmtest.SmallPage, o)
	least.Name = "bare handler, mapped file"
	all := []Result{least}
	for _, from := range sources {
		hook, err := s.newHooked(ctx, from, kvmhook.Options{NoFill: true})
		if err != nil {
			return nil, err
		}
		r := s.run(hook, vmmtest.SmallPage, o)
		r.Name = "hook, " + string(from)
		all = append(all, r)
	}
	return all, nil
}

// Sweep measures touching every page in order.
func (s *Setup) Sweep(ctx context.Context) ([]Result, error) {
	file, err := s.mapFile()
	if err != nil {
		return nil, err
	}
	defer unix.Munmap(file)
	const chunk = 512 << 10
	order := func(page int64) vmmtest.Order {
		return vmmtest.Order{Op: vmmtest.OpMeasure, Last: int(s.Size / page)}
	}
	var all []Result
	add := func(name string, page int64, srv server) {
		r := s.run(srv, page, order(page))
		r.Name = name
		all = append(all, r)
	}
	add("plain mapping of the file", vmmtest.SmallPage, nil)
	add("bare handler, chunks of 512 KiB", vmmtest.SmallPage, &bare{file: file, chunk: chunk})
	for _, o := range []struct {
		name string
		page int64
		opts kvmhook.Options
	}{
		{"fill", vmmtest.SmallPage, kvmhook.Options{}},
		{"no fill", vmmtest.SmallPage, kvmhook.Options{NoFill: true}},
		{"fill, 2 MiB pages", vmmtest.HugePage, kvmhook.Options{}},
	} {
		for _, from := range sources {
			hook, err := s.newHooked(ctx, from, o.opts)
			if err != nil {
				return nil, err
			}
			add("hook, "+string(from)+", "+o.name, o.page, hook)
		}
	}
	return all, nil
}

// Restores touches a part of the memory at random, chunk by chunk, in a first restore that records its working set, in
// one without it and in one that has it. pace is the guest's work between two touches.
func (s *Setup) Restores(ctx context.Context, part float64, pace time.Duration) ([]Result, error) {
	const chunk = 64 << 10
	o := vmmtest.Order{
		Op: vmmtest.OpMeasure, Last: int(s.Size / vmmtest.SmallPage), Seed: 7, Pace: pace,
		Some: int(part * float64(s.Size/vmmtest.SmallPage)), Run: chunk / vmmtest.SmallPage,
	}
	var set *kvmhook.WorkingSet
	var all []Result
	for _, step := range []struct {
		name string
		opts func() kvmhook.Options
	}{
		{"recording", func() kvmhook.Options { return kvmhook.Options{Record: true} }},
		{"fill, no working set", func() kvmhook.Options { return kvmhook.Options{} }},
		{"fill, working set", func() kvmhook.Options { return kvmhook.Options{WorkingSet: set} }},
	} {
		hook, err := s.newHooked(ctx, byName, step.opts())
		if err != nil {
			return nil, err
		}
		r := s.run(hook, vmmtest.SmallPage, o)
		r.Name = step.name
		if set == nil {
			set = hook.hook.Recorded()
		}
		all = append(all, r)
	}
	return all, nil
}

// Line of a report.
func (r Result) Line() string {
	if r.Err != nil {
		return fmt.Sprintf("%-40s %v", r.Name, r.Err)
	}
	us := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Nanoseconds())/1e3) }
	st := r.Status
	return fmt.Sprintf("%-40s %9.1f ms  p50 %7s us  p99 %8s us  faults %7d, fetched %6d, under way %6d", r.Name,
		r.Answer.Total.Seconds()*1e3, us(r.Answer.Median), us(r.Answer.Tail), st.Faults, st.FetchedFaults, st.WaitedFaults)
}
