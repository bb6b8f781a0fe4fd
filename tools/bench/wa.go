package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"lsad/server/admin"
	"lsad/tools/bench/gcbench"
	"lsad/tools/gcsim/sim"
)

// What write amplification is measured on: the blocks and segments of the comparison in docs/GC.md.
const (
	waBlocks       = 262_144
	waSegmentBytes = 1 << 20
	waSegments     = 1208 // 255 blocks each: utilisation 0.85
	waDevices      = 2
)

// waBench measures write amplification on the real server.
type waBench struct {
	dir, lsad  string
	overwrites float64
	rate       float64
	traces     []string
	placements []string
	json       bool
}

// waResult is what one trace and placement came to.
type waResult struct {
	Trace     string  `json:"trace"`
	Placement string  `json:"placement"`
	Blocks    float64 `json:"write_amplification"`     // what clients wrote and collections moved, to what clients wrote
	Log       float64 `json:"log_write_amplification"` // with the headers of records
	PerSecond float64 `json:"writes_per_second"`
}

func newWA() *cobra.Command {
	w := &waBench{}
	cmd := &cobra.Command{
		Use:   "wa",
		Short: "Measure write amplification on the real server",
		Long: `Fills a volume of 1 GiB on two devices in memory, 85 % of them with the reserve, overwrites it block by block over NBD
at depth 32, and says what the collector rewrote during the last half: the set-up of the simulator's comparison, on the
server itself.`,
		Example: `  go run ./tools/bench wa
  go run ./tools/bench wa --traces zipf:1.0 --placements interval,sepgc --overwrites 10`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return w.run(cmd) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&w.traces, "traces", []string{"zipf:1.0"}, "which blocks are written: see gcsim wa --help")
	f.StringSliceVar(&w.placements, "placements", []string{"interval", "sepbit", "sepgc", "none"}, "placements to compare")
	f.Float64Var(&w.overwrites, "overwrites", 5, "how often the volume is overwritten; the last half counts")
	f.Float64Var(&w.rate, "rate", 5000, "writes a second; where a checkpoint takes as long as filling much of the reserve, that is what is measured")
	f.StringVar(&w.dir, "dir", "/dev/shm", "directory, in memory, for devices and metadata")
	f.StringVar(&w.lsad, "lsad", "", "lsad program to measure (default: build it)")
	f.BoolVar(&w.json, "json", false, "print JSON")
	f.SortFlags = false
	return cmd
}

func (w *waBench) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	if w.overwrites <= 0 || w.rate <= 0 {
		return errors.New("--overwrites and --rate must be above zero")
	}
	tmp, err := os.MkdirTemp(w.dir, "lsad-bench-")
	if err != nil {
		return err
	}
	b := &bench{dir: tmp, lsad: w.lsad}
	defer b.close()
	if b.lsad == "" {
		if b.lsad, err = buildProgram(ctx, tmp, "lsad/cmd/lsad"); err != nil {
			return err
		}
	}
	var results []waResult
	for _, t := range w.traces {
		for _, p := range w.placements {
			r, err := w.measure(ctx, b, t, p)
			if err != nil {
				return fmt.Errorf("%s with placement %s: %w", t, p, err)
			}
			fmt.Fprintf(os.Stderr, "%s, %s: %.3f\n", t, p, r.Blocks)
			results = append(results, r)
		}
	}
	if w.json {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(results)
	}
	out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "TRACE\tPLACEMENT\tWRITE AMPLIFICATION\tWITH HEADERS\tWRITES/S")
	for _, r := range results {
		fmt.Fprintf(out, "%s\t%s\t%.3f\t%.3f\t%.0f\n", r.Trace, r.Placement, r.Blocks, r.Log, r.PerSecond)
	}
	return out.Flush()
}

// measure runs one trace on a server and an array of its own.
func (w *waBench) measure(ctx context.Context, b *bench, trace, placement string) (r waResult, err error) {
	spec := sim.TraceSpec{Seed: 1}
	if err := sim.ParseTrace(trace, &spec); err != nil {
		return r, err
	}
	total := int(w.overwrites * waBlocks)
	t, err := sim.NewTrace(spec, waBlocks, total)
	if err != nil {
		return r, err
	}
	name := "wa-" + placement
	args := []string{fmt.Sprintf("--segment-size=%d", waSegmentBytes), "--volume=unused:1MiB", "--log-level=warn"}
	for i := range waDevices {
		args = append(args, fmt.Sprintf("--device=%s:%d", filepath.Join(b.path(name), fmt.Sprint("d", i)), (waSegments/waDevices+1)*waSegmentBytes))
	}
	s, err := b.startLsad(ctx, name, b.lsad, args...)
	if err != nil {
		return r, err
	}
	defer func() {
		s.proc.kill() // nothing of it is needed any more
		err = errors.Join(err, os.RemoveAll(b.path(name)))
	}()
	if _, err := s.admin().CreateVolume(ctx, exportName, waBlocks*gcbench.BlockSize, 1); err != nil {
		return r, err
	}
	if _, err := s.admin().GCSet(ctx, admin.GCChange{Set: map[string]string{"placement": placement, "mode": "default-only"}}); err != nil {
		return r, err
	}
	c, err := gcbench.Dial(ctx, s.socket, exportName)
	if err != nil {
		return r, err
	}
	defer c.Close()
	if err := gcbench.Fill(ctx, c, waBlocks*gcbench.BlockSize, 0, 1); err != nil {
		return r, err
	}
	begin, drawn := time.Now(), 0
	next := func() int64 {
		if drawn++; drawn%32 == 0 {
			time.Sleep(time.Until(begin.Add(time.Duration(float64(drawn) / w.rate * float64(time.Second)))))
		}
		op, _ := t.Next()
		return int64(op.Block)
	}
	if err := gcbench.Overwrite(ctx, c, int64(total/2), next); err != nil {
		return r, err
	}
	return w.count(ctx, s, waResult{Trace: trace, Placement: placement}, func() (int64, error) {
		n := int64(total - total/2)
		return n, gcbench.Overwrite(ctx, c, n, next)
	})
}

// count has something written and takes from the server's metrics what that made it write.
func (w *waBench) count(ctx context.Context, s *server, r waResult, write func() (int64, error)) (waResult, error) {
	before, err := s.metrics(ctx)
	if err != nil {
		return r, err
	}
	begin := time.Now()
	n, err := write()
	if err != nil {
		return r, err
	}
	took := time.Since(begin)
	after, err := s.metrics(ctx)
	if err != nil {
		return r, err
	}
	var win gcbench.Window
	win.Take(before, after)
	r.Blocks, r.Log = (win.UserBytes+win.MovedBytes)/win.UserBytes, win.LogBytes/win.UserBytes
	r.PerSecond = float64(n) / took.Seconds()
	return r, nil
}
