package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/guestmem"
	"lsad/server/admin"
	"lsad/tools/guest/memguest"
)

// restoring is an image of the guest, and what is needed to run it again.
type restoring struct {
	*saving
	kit     *memguest.Kit
	options memguest.Options
	dir     string // in memory, for RAM
}

// restored is what one restore sent.
type restored struct {
	sent    int64 // bytes to the destination
	touched int64 // pages in use that the guest has there
	result  admin.Restored
}

// all ingests the guest as an image and restores it, with and without the rest of its memory in the background.
func (r *restoring) all(ctx context.Context) error {
	image, err := r.ingest(ctx)
	if err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	inUse, err := pagesInUse(ctx, r.ram)
	if err != nil {
		return err
	}
	const mib = 1 << 20
	fmt.Fprintf(r.out, "\nlsad image ingest: %d pages in use of %d, the image takes %.1f MiB\n",
		image.Pages.InUse, image.Pages.Total, float64(image.StoredBytes)/mib)
	whole, err := r.restore(ctx, inUse, admin.RestoreImage{})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	some, err := r.restore(ctx, inUse, admin.RestoreImage{NoFill: true, RecordSeconds: forEver.Seconds()})
	if err != nil {
		return fmt.Errorf("restore without filling: %w", err)
	}
	chunks, err := r.recorded(ctx)
	if err != nil {
		return err
	}
	again, err := r.restore(ctx, inUse, admin.RestoreImage{})
	if err != nil {
		return fmt.Errorf("restore with a working set: %w", err)
	}
	touched := float64(some.touched * guestmem.PageSize)
	fmt.Fprintf(r.out, "restored, 2 rounds of its work, no fill: %.1f MiB sent; it touched %.1f MiB of its pages in use\n",
		float64(some.sent)/mib, touched/mib)
	fmt.Fprintf(r.out, "  that asked for at least %d pages, of which a working set of %d chunks was recorded\n", some.touched, chunks)
	fmt.Fprintf(r.out, "restored, with fill, the working set first: %d asked for\n", again.result.Demanded)
	fmt.Fprintf(r.out, "restored, with fill: %.1f MiB sent; %d pages with data, %d free or zero; %d asked for; ran after %.3fs, all there after %.2fs\n",
		float64(whole.sent)/mib, whole.result.DataPages, whole.result.ZeroPages, whole.result.Demanded, whole.result.ToRunSeconds, whole.result.TookSeconds)
	own, err := r.loadOwn(ctx)
	if err != nil {
		return fmt.Errorf("QEMU's load of its own file: %w", err)
	}
	fmt.Fprintf(r.out, "QEMU loaded its own file, which was in the page cache, in %.3fs\n\n", own.Seconds())
	share := float64(some.sent) / touched
	verdict(r.out, "bytes sent of the pages in use that it touched", share, 1.1, share <= 1.1)
	once := float64(whole.result.DataPages+whole.result.ZeroPages) / float64(image.Pages.Total)
	verdict(r.out, "pages sent of those that there are", once, 1, once <= 1)
	fewer := float64(again.result.Demanded) / float64(some.touched)
	verdict(r.out, "pages asked for with the working set, of those while it was recorded", fewer, 1.0/3, fewer <= 1.0/3)
	sooner := whole.result.ToRunSeconds / own.Seconds()
	verdict(r.out, "time until the guest runs, of that of QEMU's own load", sooner, 0.1, sooner <= 0.1)
	return nil
}

// forEver is longer than any restore here.
const forEver = time.Hour

// recorded waits until the image has the working set of the restore before, and returns how many chunks that has.
func (r *restoring) recorded(ctx context.Context) (chunks int, err error) {
	for range 500 {
		image, err := r.s.admin().Image(ctx, imageName)
		if err != nil || image.WorkingSet.Count > 0 {
			return image.WorkingSet.Count, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0, errors.New("no working set was recorded")
}

// loadOwn has a new QEMU load what QEMU saved.
func (r *restoring) loadOwn(ctx context.Context) (time.Duration, error) {
	o := r.options
	o.Incoming, o.RAMFile = true, r.dir+"/restored"
	vm, err := r.kit.Start(ctx, o)
	if err != nil {
		return 0, err
	}
	defer os.Remove(o.RAMFile)
	defer vm.Close()
	begin := time.Now()
	if err := vm.QMP.Execute(ctx, "migrate-incoming", map[string]string{"uri": "exec:cat " + r.b.path(migrationFile)}, nil); err != nil {
		return 0, err
	}
	err = awaitMigration(ctx, vm.QMP)
	return time.Since(begin), err
}

// ingest has QEMU send the stopped guest to lsad. It may run for a moment first: QEMU does not send a guest twice
// that has not run in between.
func (r *restoring) ingest(ctx context.Context) (admin.Image, error) {
	for _, command := range []string{"cont", "stop"} {
		if err := r.vm.QMP.Execute(ctx, command, nil, nil); err != nil {
			return admin.Image{}, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	address := "unix:" + r.b.path("save.sock")
	var wg sync.WaitGroup
	defer wg.Wait()
	listens := make(chan struct{})
	wg.Go(func() {
		select {
		case <-listens:
		case <-ctx.Done():
			return
		}
		if err := r.vm.Migrate(ctx, address); err != nil {
			cancel(err)
		}
	})
	var once sync.Once
	image, err := r.s.admin().IngestImage(ctx, admin.IngestImage{Name: imageName, Listen: address}, func(admin.JobProgress) {
		once.Do(func() { close(listens) })
	})
	return image, errors.Join(err, context.Cause(ctx))
}

// pagesInUse returns which pages of a RAM file are neither free nor zero.
func pagesInUse(ctx context.Context, ram string) (*guestmem.PageSet, error) {
	f, err := os.Open(ram)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	defer unix.Munmap(data)
	ranges := []guestmem.Range{{Data: data}}
	if low := 3 << 30; len(data) >= 3584<<20 { // QEMU's pc machine
		ranges = []guestmem.Range{{Data: data[:low]}, {GPA: 4 << 30, Data: data[low:]}}
	}
	m, err := guestmem.NewMemory(ranges)
	if err != nil {
		return nil, err
	}
	free, report, err := guestmem.FreePages(ctx, m, guestmem.Options{})
	if err != nil || free == nil {
		return nil, errors.Join(err, errors.New(report.Why))
	}
	inUse, zeros := guestmem.NewPageSet(m.Pages()), make([]byte, guestmem.PageSize)
	for page := range m.Pages() {
		if !free.Has(page) && !bytes.Equal(m.Page(page), zeros) {
			inUse.Add(page, 1)
		}
	}
	return inUse, nil
}

// restore resumes the image in a new QEMU and lets it do two rounds of its work there.
func (r *restoring) restore(ctx context.Context, inUse *guestmem.PageSet, q admin.RestoreImage) (restored, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o := r.options
	o.Incoming, o.RAMFile = true, r.dir+"/restored"
	vm, err := r.kit.Start(ctx, o)
	if err != nil {
		return restored{}, err
	}
	defer os.Remove(o.RAMFile)
	defer vm.Close()
	if err := vm.Receive(ctx, "unix:"+r.b.path("incoming.sock")); err != nil {
		return restored{}, err
	}
	meter, err := newMeter(r.b.path("meter.sock"), r.b.path("incoming.sock"))
	if err != nil {
		return restored{}, err
	}
	defer meter.close()
	var out restored
	done := make(chan error, 1)
	go func() {
		var err error
		q.To = "unix:" + r.b.path("meter.sock")
		out.result, err = r.s.admin().RestoreImage(ctx, imageName, q, func(admin.JobProgress) {})
		if err != nil {
			cancel(err)
		}
		done <- err
	}()
	err = vm.WaitRounds(ctx, 2)
	if q.NoFill {
		cancel(nil) // it has no other end
		<-done
	} else if err == nil {
		err = <-done
	}
	if err != nil {
		cancel(err)
		return restored{}, err
	}
	out.sent = meter.sent.Load()
	out.touched, err = touchedPages(o.RAMFile, inUse)
	return out, err
}

// touchedPages counts the pages of a set that a RAM file has data for.
func touchedPages(ram string, set *guestmem.PageSet) (int64, error) {
	f, err := os.Open(ram)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var touched int64
	for off := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return touched, nil
		}
		if err != nil {
			return 0, err
		}
		if off, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); err != nil {
			return 0, err
		}
		for ; data < off; data += guestmem.PageSize {
			if set.Has(uint64(data / guestmem.PageSize)) {
				touched++
			}
		}
	}
}
