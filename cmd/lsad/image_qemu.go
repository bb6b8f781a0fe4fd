package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/server/admin"
)

func imageIngest(t *target) *cobra.Command {
	q := admin.IngestImage{}
	cmd := &cobra.Command{
		Use:   "ingest NAME --listen ADDR",
		Short: "Save a VM of QEMU as an image: be the destination of its migrate",
		Long: `Save a VM of QEMU as an image. The server listens on ADDR for one migration, which you start in QEMU's
monitor (migrate). The VM runs on until QEMU has sent its memory, and is stopped then: it can go on
later from the image, or at once where it was (cont). Pages that its kernel has free, and pages of zeros,
are not stored.

Anyone who reaches ADDR could send a VM: take a unix socket, or 127.0.0.1 and a tunnel.`,
		Example: `  lsad image ingest web1 --listen unix:/run/web1.save
  (in QEMU's monitor)  migrate unix:/run/web1.save
  lsad image ingest web1 --listen 127.0.0.1:4444 --with-volume web1-disk`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := config.CheckVolumeName(args[0]); err != nil {
				return err
			}
			var err error
			if q.Name = args[0]; q.Listen == "" {
				return config.Usagef("--listen is missing: where QEMU's migrate should go, unix:PATH or HOST:PORT")
			}
			if q.Listen, err = absolute(q.Listen); err != nil {
				return err
			}
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				image, err := job(ctx, cmd, func(ctx context.Context, show func(admin.JobProgress)) (admin.Image, error) {
					return c.IngestImage(ctx, q, show)
				})
				if err != nil {
					return err
				}
				return t.printImage(cmd, image)
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&q.Listen, "listen", "", "`ADDR` for QEMU's migrate, unix:PATH or HOST:PORT")
	fs.BoolVar(&q.Insecure, "insecure", false, "allow an ADDR that other machines reach")
	fs.BoolVar(&q.KeepFree, "keep-free", false, "store the pages that the guest has free, too")
	fs.StringArrayVar(&q.Volumes, "with-volume", nil, "take a snapshot of this `VOLUME` of the VM when it has stopped; may be given several times")
	fs.StringVar(&q.Parent, "parent", "", "store only what differs from this earlier `IMAGE` of the VM")
	return cmd
}

func imageRestore(t *target) *cobra.Command {
	q := admin.RestoreImage{}
	var rate, page sizeFlag
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "restore NAME --to ADDR",
		Short: "Resume a VM from an image in a QEMU that waits for it; it runs at once",
		Long: `Resume a VM from an image in a QEMU that waits for it: started with the same arguments and
-incoming defer, told migrate-set-capabilities postcopy-ram on, then migrate-incoming ADDR.

The VM runs as soon as QEMU has its device state. It gets the memory that it touches first, and the rest in the
background; the command stays until it has all. If the connection is lost meanwhile the VM waits: have QEMU
listen again (migrate-recover ADDR), and this command finds it. If this command was ended, run it
again with --resume. The image stays as it is, and can be restored again.`,
		Example: `  lsad image restore web1 --to unix:/run/web1.incoming
  lsad image restore web1 --to 10.0.0.7:4444 --rate 200MiB
  lsad image restore web1 --to 10.0.0.7:4444 --resume`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if q.To == "" {
				return config.Usagef("--to is missing: where QEMU waits for the VM, unix:PATH or HOST:PORT")
			}
			if q.To, err = absolute(q.To); err != nil {
				return err
			}
			q.BytesPerSecond, q.PageBytes, q.PatienceSeconds = rate.bytes(), page.bytes(), patience.Seconds()
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				r, err := job(ctx, cmd, func(ctx context.Context, show func(admin.JobProgress)) (admin.Restored, error) {
					return c.RestoreImage(ctx, args[0], q, show)
				})
				if err != nil {
					return err
				}
				return t.printRestored(cmd, r)
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&q.To, "to", "", "`ADDR` where QEMU waits, unix:PATH or HOST:PORT")
	fs.BoolVar(&q.Resume, "resume", false, "the VM runs there already and has lost the rest of its memory")
	fs.BoolVar(&q.NoFill, "no-fill", false, "send nothing that is not asked for; ends with Ctrl-C only")
	sendingFlags(cmd, &rate, &page, &patience)
	return cmd
}

// sendingFlags are those of all commands that send a VM.
func sendingFlags(cmd *cobra.Command, rate, page *sizeFlag, patience *time.Duration) {
	fs := cmd.Flags()
	fs.Var(rate, "rate", "send no more than `SIZE` per second in the background")
	fs.Var(page, "page-size", "`SIZE` of the pages behind the RAM at the destination, if those are huge pages: 2MiB")
	fs.DurationVar(patience, "patience", 0, "give a lost destination up after this `TIME`; 0 is never")
}

// sizeFlag is an optional size.
type sizeFlag struct{ size *config.Size }

func (f *sizeFlag) String() string {
	if f.size == nil {
		return ""
	}
	return f.size.String()
}

func (f *sizeFlag) Set(text string) error {
	n, err := config.ParseSize(text)
	f.size = &n
	return err
}

func (f *sizeFlag) Type() string { return "size" }

// bytes is 0 if the flag was not given.
func (f *sizeFlag) bytes() int64 {
	if f.size == nil {
		return 0
	}
	return int64(*f.size)
}

// job runs long work of the server, with a progress bar. The first signal ends it in order.
func job[T any](ctx context.Context, cmd *cobra.Command, run func(context.Context, func(admin.JobProgress)) (T, error)) (T, error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	bar := newBar(cmd.ErrOrStderr())
	result, err := run(ctx, bar.show)
	bar.end()
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%s: interrupted", cmd.CommandPath())
	}
	return result, err
}

// absolute makes the path of an address absolute, for the server.
func absolute(text string) (string, error) {
	a, err := config.ParseAddr(text)
	if err != nil || a.Network != "unix" {
		return text, err
	}
	path, err := filepath.Abs(a.Address)
	if err != nil {
		return "", err
	}
	return "unix:" + path, nil
}

func (t *target) printRestored(cmd *cobra.Command, r admin.Restored) error {
	if t.json {
		return printJSON(cmd, r)
	}
	out := newTable(cmd.OutOrStdout())
	out.row("The VM:", "is at the "+r.Owner+", which has all of its memory")
	out.row("Could run after:", seconds(r.ToRunSeconds))
	out.row("Took:", seconds(r.TookSeconds))
	out.row("Sent:", fmt.Sprintf("%s; %d pages with data, %d free or zero", size(r.SentBytes), r.DataPages, r.ZeroPages))
	out.row("Asked for:", fmt.Sprintf("%d times", r.Demanded))
	out.row("Connection lost:", fmt.Sprintf("%d times", r.Losses))
	return out.flush()
}
