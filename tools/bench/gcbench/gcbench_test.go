package gcbench

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lsad/internal/blockdev"
	"lsad/server/admin"
	"lsad/server/nbd"
	"lsad/server/nbd/memexport"
)

func TestHistogram(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h Histogram
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(math.Exp(rng.Float64()*18) + 1)
		all = append(all, d)
		h.Add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, .5, .99, .999, .9999} {
		want, got := all[int(q*float64(len(all)))], h.Quantile(q)
		if got < want || float64(got) > float64(want)*1.04+1 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := h.Quantile(1); got != all[len(all)-1] {
		t.Errorf("the largest is %v, want %v", got, all[len(all)-1])
	}
	limit := time.Duration(lower(bucket(int64(10 * time.Millisecond))))
	n := uint64(0)
	for _, d := range all {
		if d >= limit {
			n++
		}
	}
	if got := h.Above(10 * time.Millisecond); got != n {
		t.Errorf("%d above 10 ms, want %d", got, n)
	}
	for v := int64(1); v < 1<<58; v = v*5/4 + 1 {
		if b := bucket(v); lower(b) > v || lower(b+1) <= v {
			t.Fatalf("%d is in bucket %d, from %d to %d", v, b, lower(b), lower(b+1))
		}
	}
}

func TestTimeline(t *testing.T) {
	epoch := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	run := func(reason string, from, took float64) admin.GCRun {
		return admin.GCRun{Reason: reason, Began: epoch.Add(time.Duration(from * float64(time.Second))), Seconds: took}
	}
	var line Timeline
	line.Observe([]admin.GCDevice{
		{Device: "a", Recent: []admin.GCRun{run("early", -1, 2), run("early", 4, 2)}}, // the first is half outside
		{Device: "b", Recent: []admin.GCRun{run("forced", 5, 2)}},
	})
	line.Observe([]admin.GCDevice{ // some again
		{Device: "a", Recent: []admin.GCRun{run("early", 4, 2), run("early", 20, 1)}},
		{Device: "b", Recent: []admin.GCRun{run("forced", 5, 2)}},
	})
	c := line.Between(epoch, epoch.Add(10*time.Second), 2)
	if c.Early != 1 || c.Forced != 1 {
		t.Errorf("%d early, %d forced, want 1 and 1", c.Early, c.Forced)
	}
	for i, want := range []float64{.6, .3, .1} {
		if math.Abs(c.Collecting[i]-want) > 1e-9 {
			t.Errorf("%d devices collect %v of the time, want %v", i, c.Collecting[i], want)
		}
	}
	if math.Abs(c.Duty-.5) > 1e-9 || math.Abs(c.Overlap()-.1) > 1e-9 {
		t.Errorf("duty %v, overlap %v, want 0.5 and 0.1", c.Duty, c.Overlap())
	}
}

// catalog has one export in memory.
type catalog struct{ disk *memexport.Disk }

func (c catalog) Open(string, nbd.Client) (nbd.Export, error) { return c.disk.Open(), nil }
func (c catalog) List() []nbd.ExportInfo                      { return nil }

// serve serves a disk and returns the socket.
func serve(t *testing.T, disk *memexport.Disk) string {
	srv, err := nbd.New(nbd.Config{Catalog: catalog{disk}})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "nbd.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		<-served
	})
	return socket
}

func dial(t *testing.T, socket string) *Conn {
	c, err := Dial(t.Context(), socket, "vol0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A filled export is loaded at about the rate asked for, and every request is timed; a read of what the load did not
// write is an error, on this connection and from then on.
func TestLoad(t *testing.T) {
	const size = 1 << 20
	disk := memexport.New(size, false)
	socket := serve(t, disk)
	clock, err := blockdev.NewFineClock()
	if err != nil {
		t.Fatal(err)
	}
	defer clock.Close()
	c := dial(t, socket)
	if err := Fill(t.Context(), c, size, 2, 1); err != nil {
		t.Fatal(err)
	}
	if _, writes := disk.Batches(); writes < 2*size/BlockSize {
		t.Errorf("%d writes, want at least %d", writes, 2*size/BlockSize)
	}
	for _, read := range []bool{true, false} {
		l := Load{Read: read, Rate: 2000, Size: size, Seed: 1}
		h, err := l.Run(t.Context(), c, clock, 200*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if n := h.Latency().Requests; n < 300 || n > 500 {
			t.Errorf("read %v: %d requests at 2,000 a second in 0.2 s", read, n)
		}
	}
	if err := disk.Trim(0, size); err != nil {
		t.Fatal(err)
	}
	l := Load{Read: true, Rate: 2000, Size: size, Seed: 1}
	for range 2 {
		if _, err := l.Run(t.Context(), c, clock, 50*time.Millisecond); !errors.Is(err, ErrData) {
			t.Errorf("load of lost data: %v, want %v", err, ErrData)
		}
	}
}

// A context ends a load, and what is in flight stays out of the way of nobody.
func TestLoadCancelled(t *testing.T) {
	c := dial(t, serve(t, memexport.New(1<<20, false)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Fill(ctx, c, 1<<30, 0, 1); err == nil {
		t.Error("filled an export beyond its end")
	}
}

func TestReport(t *testing.T) {
	window := func(read float64, long float64) []Window {
		return []Window{{Read: Latency{P999: read}, UserBytes: 1, LongWaits: map[string]float64{"room": long}, Collections: Collections{Collecting: make([]float64, 5)}}}
	}
	r := Report{Setups: []Setup{
		{Mode: Off, Copies: 1, Windows: window(100, 0)}, {Mode: Timed, Copies: 1, Windows: window(190, 0)},
		{Mode: Off, Copies: 2, Windows: window(100, 0)}, {Mode: Timed, Copies: 2, Windows: window(130, 3)},
		{Mode: DefaultOnly, Copies: 2, Windows: window(900, 9)},
	}}
	r.Judge()
	var met []bool
	for _, x := range r.Targets {
		met = append(met, x.Met)
	}
	if want := []bool{true, true, false, false}; !slices.Equal(met, want) {
		t.Errorf("targets met: %v, want %v", met, want)
	}
	var text strings.Builder
	if err := r.Write(&text, true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "| read p99.9 to that without collection, two copies | 1.2 | 1.30 | not met |") {
		t.Error(text.String())
	}
}
