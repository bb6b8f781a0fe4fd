package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"lsad/internal/blockdev"
	"lsad/server/admin"
	"lsad/tools/bench/gcbench"
)

// gcRun is one set-up being measured.
type gcRun struct {
	*gcBench
	server   *server
	size     int64
	writer   *gcbench.Conn
	reader   *gcbench.Conn
	clock    *blockdev.FineClock
	timeline gcbench.Timeline
	seed     uint64
}

// setup measures one set-up on a server and an array of its own.
func (g *gcBench) setup(ctx context.Context, b *bench, s *gcbench.Setup) (err error) {
	size := g.device
	if s.Mode == gcbench.Off {
		size = g.roomy(s.Copies)
	}
	name := fmt.Sprintf("%s-%d", s.Mode, s.Copies)
	args := []string{"--segment-size=" + g.segment.String(), "--volume=unused:1MiB", "--log-level=warn"}
	for i := range gcDevices {
		args = append(args, "--device="+filepath.Join(b.path(name), fmt.Sprintf("d%d", i))+":"+size.String())
	}
	timing, err := json.Marshal(diskTiming)
	if err != nil {
		return err
	}
	if err := os.Setenv("LSAD_SLOW", string(timing)); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s, %d copies: devices of %v\n", s.Mode, s.Copies, size)
	r := &gcRun{gcBench: g, size: g.volume(s.Copies)}
	if r.server, err = b.startLsad(ctx, name, b.lsad, args...); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w; the server said:\n%s", err, r.server.proc.out.String())
		}
		r.server.proc.kill() // nothing of it is needed any more
		err = errors.Join(err, os.RemoveAll(b.path(name)))
	}()
	if r.clock, err = blockdev.NewFineClock(); err != nil {
		return err
	}
	defer r.clock.Close()
	if err := r.prepare(ctx, s); err != nil {
		return err
	}
	defer r.writer.Close()
	defer r.reader.Close()
	for range g.windows {
		w, err := r.measure(ctx, g.window)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "  read p50 %.0f p99.9 %.0f, write p50 %.0f p99.9 %.0f max %.0f us, %d early, %d forced\n",
			w.Read.P50, w.Read.P999, w.Write.P50, w.Write.P999, w.Write.Max, w.Collections.Early, w.Collections.Forced)
		s.Windows = append(s.Windows, w)
	}
	return nil
}

// prepare makes the volume, fills it, and lets the load settle.
func (r *gcRun) prepare(ctx context.Context, s *gcbench.Setup) (err error) {
	c := r.server.admin()
	if _, err := c.CreateVolume(ctx, exportName, r.size, s.Copies); err != nil {
		return err
	}
	if s.Mode == gcbench.DefaultOnly {
		if _, err := c.GCSet(ctx, admin.GCChange{Set: map[string]string{"mode": string(gcbench.DefaultOnly)}}); err != nil {
			return err
		}
	}
	if r.writer, err = gcbench.Dial(ctx, r.server.socket, exportName); err != nil {
		return err
	}
	if r.reader, err = gcbench.Dial(ctx, r.server.socket, exportName); err != nil {
		r.writer.Close()
		return err
	}
	begin := time.Now()
	if err = gcbench.Fill(ctx, r.writer, r.size, r.overwrites, 1); err == nil {
		fmt.Fprintf(os.Stderr, "  filled in %v\n", time.Since(begin).Round(time.Second/10))
		_, err = r.measure(ctx, r.settle)
	}
	if err != nil {
		r.writer.Close()
		r.reader.Close()
	}
	return err
}

// measure keeps the load up for a while and says what came of it.
func (r *gcRun) measure(ctx context.Context, length time.Duration) (w gcbench.Window, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	before, err := r.server.metrics(ctx)
	if err != nil {
		return w, err
	}
	r.seed++
	loads := []struct {
		load gcbench.Load
		conn *gcbench.Conn
		to   *gcbench.Latency
	}{
		{gcbench.Load{Rate: r.writes, Size: r.size, Seed: 2 * r.seed}, r.writer, &w.Write},
		{gcbench.Load{Rate: r.reads, Size: r.size, Seed: 2*r.seed + 1, Read: true}, r.reader, &w.Read},
	}
	from, cpu, starved := time.Now(), r.server.proc.cpuTime(), r.server.proc.cpuWait()
	errs := make(chan error)
	for _, l := range loads {
		go func() {
			h, err := l.load.Run(ctx, l.conn, r.clock, length)
			*l.to = h.Latency()
			errs <- err
		}()
	}
	watched := make(chan error)
	watching, stop := context.WithCancel(ctx)
	go func() { watched <- r.watch(watching) }()
	for range loads {
		if e := <-errs; e != nil {
			err = errors.Join(err, e)
			cancel()
		}
	}
	stop()
	err = errors.Join(err, <-watched)
	to := time.Now()
	w.ServerCPU = float64(r.server.proc.cpuTime()-cpu) / float64(to.Sub(from))
	w.Starved = float64(r.server.proc.cpuWait()-starved) / float64(to.Sub(from))
	if err != nil {
		return w, err
	}
	w.Collections = r.timeline.Between(from, to, gcDevices)
	after, err := r.server.metrics(ctx)
	if err == nil {
		w.Take(before, after)
	}
	return w, err
}

// watchEvery is often enough to see each of the few collections of a device that the server remembers.
const watchEvery = 400 * time.Millisecond

// watch follows the collections until the context ends, and looks once more then.
func (r *gcRun) watch(ctx context.Context) error {
	every := time.NewTicker(watchEvery)
	defer every.Stop()
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-every.C:
		}
		all, err := r.server.admin().GCStatus(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		r.timeline.Observe(all)
	}
	return nil
}
