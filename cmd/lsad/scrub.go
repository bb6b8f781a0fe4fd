package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/lsa"
	"lsad/lsa/format"
	"lsad/server/admin"
)

// Scrub implements admin.Maintainer.
func (b *backend) Scrub(ctx context.Context, bytesPerSecond int64) (admin.ScrubReport, error) {
	r, err := b.server.array.Scrub(ctx, bytesPerSecond)
	if err == nil {
		b.server.log.Info("scrubbed", "blocks", r.Blocks, "bad", r.Bad, "repaired", r.Repaired, "lost", r.Lost, "missing", r.Missing)
	}
	return admin.ScrubReport(*r), coded(err)
}

// Work implements admin.Maintainer.
func (b *backend) Work() admin.Work {
	of := func(p lsa.Progress) admin.Progress { return admin.Progress(p) }
	w := admin.Work{Rebuild: of(b.server.array.RebuildProgress()), Scrub: of(b.server.array.ScrubProgress())}
	if slot, done, total := b.server.array.RemovalProgress(); slot >= 0 {
		w.Removal = admin.Removal{Running: true, Slot: slot, DoneBytes: done * format.BlockSize, Bytes: total * format.BlockSize}
	}
	return w
}

func newScrub() *cobra.Command {
	t := &target{}
	var rate string
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Read and verify everything on a running server, and repair it",
		Long: `Read every copy of every mapped block and verify it, while the server runs. What is bad and has
a good copy on another device is written anew. The exit code is 1 if anything is lost. Breaking
the command off ends the scrub.`,
		Example: `  lsad scrub
  lsad scrub --rate 100MiB`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var perSecond int64
			if rate != "" {
				n, err := config.ParseSize(rate)
				if err != nil {
					return err
				}
				perSecond = int64(n)
			}
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
				defer stop()
				r, err := runScrub(ctx, cmd, c, perSecond)
				if errors.Is(err, errBrokenOff) {
					return fmt.Errorf("scrub: %w: the server has ended it, and what it repaired stays", err)
				}
				if err != nil {
					return err
				}
				return printScrub(cmd, t, r)
			})
		},
	}
	cmd.Flags().StringVar(&rate, "rate", "", "read at most `SIZE` a second; without it as fast as it goes")
	t.flags(cmd)
	return cmd
}

// runScrub shows how far it is while the server scrubs.
func runScrub(ctx context.Context, cmd *cobra.Command, c *admin.Client, perSecond int64) (admin.ScrubReport, error) {
	const page = 4 << 20 // bytes of a volume that a page of the map describes
	return watchWork(ctx, cmd, c, "went through the map,", func(w admin.Work) (done, total int64) {
		if !w.Scrub.Running {
			return 0, 0
		}
		return w.Scrub.Pages * page, w.Scrub.Total * page
	}, func(ctx context.Context) (admin.ScrubReport, error) { return c.Scrub(ctx, perSecond) })
}

func printScrub(cmd *cobra.Command, t *target, r admin.ScrubReport) error {
	if t.json {
		if err := printJSON(cmd, r); err != nil {
			return err
		}
	} else {
		out := cmd.OutOrStdout()
		for _, p := range r.Problems {
			fmt.Fprintln(out, p)
		}
		if _, err := fmt.Fprintf(out, "%d copies of blocks read: %d bad, %d repaired, %d lost; %d are on absent devices\n", r.Blocks, r.Bad, r.Repaired, r.Lost, r.Missing); err != nil {
			return err
		}
	}
	if r.Lost > 0 {
		return errReported
	}
	return nil
}
