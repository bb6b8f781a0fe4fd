package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/lsa"
)

func newCheck() *cobra.Command {
	var o offline
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Verify a stopped array, structure and data",
		Long: `Verify a stopped array, structure and data: both copies of the superblocks, the metadata store,
the map, the log, and every mapped block against its checksum. Of metadata in two directories
both are read whole, and all else is judged by the one that is as it should be. Nothing is
changed. What a crash leaves and the next start would recover is not damage. The exit code is 1
if anything is wrong, or if one of two metadata directories is left out.`,
		Example: `  lsad check
  lsad check --dir /srv/lsad --json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			return runCheck(ctx, cmd, &o)
		},
	}
	o.flags(cmd)
	return cmd
}

func runCheck(ctx context.Context, cmd *cobra.Command, o *offline) error {
	set, err := o.open(false)
	if err != nil {
		return err
	}
	defer set.close()
	meta, err := (&dataDir{path: o.dir}).checkMeta(ctx, set)
	if err != nil {
		return err
	}
	p := newProgress(cmd.ErrOrStderr(), "verified")
	report, err := lsa.Check(ctx, lsa.Options{Devices: set, FS: vfs.Default, Meta: meta.dir}, p.show)
	p.end()
	if err != nil {
		if len(meta.problems) == 0 || ctx.Err() != nil {
			return fmt.Errorf("%w%s", err, openAdvice(err))
		}
		if !storeUnusable(err) { // else what is said of the directories is the advice
			err = fmt.Errorf("%w%s", err, openAdvice(err))
		}
		what := strings.TrimPrefix(err.Error(), "check array: ")
		report = &lsa.CheckReport{Problems: []lsa.Problem{{Kind: "array", Where: "opening it", What: what}}}
	}
	report.Problems = append(meta.problems, report.Problems...)
	if err := printCheck(cmd, o, &checkReport{report, meta.advice}); err != nil {
		return err
	}
	if len(report.Problems) > 0 {
		return errReported
	}
	return nil
}

// checkReport is what lsad check prints.
type checkReport struct {
	*lsa.CheckReport
	Advice []string `json:"advice,omitempty"` // on metadata directories
}

func printCheck(cmd *cobra.Command, o *offline, r *checkReport) error {
	if o.json {
		return printJSON(cmd, r)
	}
	out := cmd.OutOrStdout()
	for _, p := range r.Problems {
		fmt.Fprintln(out, p)
	}
	for _, a := range r.Advice {
		fmt.Fprintln(out, a)
	}
	if len(r.Advice) == 0 && slices.ContainsFunc(r.Problems, func(p lsa.Problem) bool {
		return strings.Contains(p.What, lsa.ErrStoreDamaged.Error()) && p.Kind == "array"
	}) {
		fmt.Fprintln(out, "the metadata store cannot be used"+storeAdvice)
	}
	if r.More > 0 {
		fmt.Fprintf(out, "and %d more\n", r.More)
	}
	verdict := "nothing is wrong"
	if n := len(r.Problems) + r.More; n > 0 {
		verdict = fmt.Sprintf("problems: %d", n)
	}
	_, err := fmt.Fprintf(out, "%d volumes, %d segments, %d blocks (%s) verified in %s: %s\n",
		r.Volumes, r.Segments, r.Blocks, size(r.Bytes), seconds(r.Took.Seconds()), verdict)
	return err
}

// progress shows how far long work is, on a terminal.
type progress struct {
	w    io.Writer // nil where nobody looks
	verb string
	last time.Time
}

// progressEvery is how often progress is shown.
const progressEvery = 200 * time.Millisecond

func newProgress(w io.Writer, verb string) *progress {
	p := &progress{verb: verb}
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		p.w = w
	}
	return p
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// show is called from one goroutine at a time.
func (p *progress) show(done, total int64) {
	if p.w == nil || time.Since(p.last) < progressEvery || total == 0 {
		return
	}
	p.last = time.Now()
	fmt.Fprintf(p.w, "\r%s %s of %s (%d %%)\x1b[K", p.verb, size(done), size(total), 100*done/total)
}

// end clears the line.
func (p *progress) end() {
	if p.w != nil && !p.last.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
