package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/memsvc/qemu"
	"lsad/server/admin"
)

func imageIngest(t *target) *cobra.Command {
	q := admin.IngestImage{}
	cmd := &cobra.Command{
		Use:   "ingest NAME --qmp SOCKET",
		Short: "Save a VM of QEMU as an image: be the destination of its migrate",
		Long: `Save a VM of QEMU as an image. With --qmp the server tells QEMU to migrate the VM to it; with --listen alone it
waits for a migrate that you start. The VM runs on until QEMU has sent its memory, and is stopped then: it can
go on from the image, or at once where it was (cont). If saving fails, --qmp has it go on there. Pages that its
kernel has free, and pages of zeros, are not stored.

A VM that QEMU emulates, without KVM, is stopped before its memory is sent: QEMU loses writes that such a VM does
meanwhile. With --listen alone, stop it yourself (stop) before you start the migrate.

Anyone who reaches ADDR could send a VM: take a unix socket, or 127.0.0.1 and a tunnel.`,
		Example: `  lsad image ingest web1 --qmp /run/web1.qmp
  lsad image ingest web1 --qmp /run/web1.qmp --with-volume web1-disk
  lsad image ingest web1 --listen 127.0.0.1:4444`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := config.CheckVolumeName(args[0]); err != nil {
				return err
			}
			if q.Name = args[0]; q.Listen == "" && q.QMP == "" {
				return config.Usagef("which VM? Give --qmp SOCKET of its monitor, or --listen ADDR for a migrate of your own")
			}
			if err := absoluteBoth(&q.Listen, &q.QMP); err != nil {
				return err
			}
			return job(t, cmd, func(ctx context.Context, c *admin.Client, show func(admin.JobProgress)) (admin.Image, error) {
				i, err := c.IngestImage(ctx, q, show)
				if errors.Is(err, admin.ErrStopped) {
					err = fmt.Errorf("%w; the VM may stand still: cont in its monitor has it run on", err)
				}
				return i, err
			}, t.printImage)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&q.QMP, "qmp", "", "`SOCKET` of the VM's monitor")
	fs.StringVar(&q.Listen, "listen", "", "`ADDR` for QEMU's migrate, unix:PATH or HOST:PORT; default: SOCKET.save")
	fs.BoolVar(&q.Insecure, "insecure", false, "allow an ADDR that other machines reach")
	fs.BoolVar(&q.KeepFree, "keep-free", false, "store the pages that the guest has free, too")
	fs.StringArrayVar(&q.Volumes, "with-volume", nil, "take a snapshot of this `VOLUME` of the VM when it has stopped; may be given several times")
	fs.StringVar(&q.Parent, "parent", "", "store only what differs from this earlier `IMAGE` of the VM")
	return cmd
}

func imageRestore(t *target) *cobra.Command {
	q := admin.RestoreImage{}
	var rate, page sizeFlag
	var patience, record time.Duration
	var unforked *bool
	cmd := &cobra.Command{
		Use:   "restore NAME --qmp SOCKET | --to ADDR",
		Short: "Resume a VM from an image in a QEMU that waits for it; it runs at once",
		Long: `Resume a VM from an image in a QEMU that waits for it: started with the same arguments and -incoming defer, and
with the disks of a fork if the image was made with its disks (lsad image fork): the image itself is refused then. With
--qmp that QEMU is told what to do. On another host, tell it yourself: switch its capability postcopy-ram on,
then migrate-incoming; and give --to.

The VM runs as soon as QEMU has its device state. It gets the memory that it touches first, and the rest in the
background; the command stays until it has all. If the connection is lost meanwhile the VM waits: without
--qmp have QEMU listen at ADDR again (migrate-recover), and this command finds it. If this command was ended,
run it again with --resume. The image stays as it is, and can be restored again.

With --record nothing is sent for a while but what the VM asks for, in which order is noted, and that is kept
with the image, and with the image that a fork was made from. Later restores send this memory first.

With --no-fill the VM gets nothing but what it touches, until Ctrl-C, which is no failure then. What it has not got by then
it gets from another restore with --resume.` + exitCodes,
		Example: `  lsad image restore web1 --qmp /run/web1.qmp
  lsad image restore web2 --qmp /run/web2.qmp --record 30s
  lsad image restore web1 --to 10.0.0.7:4444 --rate 200MiB
  lsad image restore web1 --to 10.0.0.7:4444 --resume`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.To == "" && q.QMP == "" {
				return config.Usagef("where to? Give --qmp SOCKET of the monitor of a QEMU that waits, or --to ADDR where one listens")
			}
			if err := absoluteBoth(&q.To, &q.QMP); err != nil {
				return err
			}
			if record < 0 {
				return config.Usagef("--record %v: for how long? A time such as 30s", record)
			}
			q.BytesPerSecond, q.PageBytes, q.PatienceSeconds, q.RecordSeconds = rate.bytes(), page.bytes(), patience.Seconds(), record.Seconds()
			q.WithoutVolumes = *unforked
			return t.restore(cmd, args[0], q)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&q.QMP, "qmp", "", "`SOCKET` of the monitor of the QEMU that waits")
	fs.StringVar(&q.To, "to", "", "`ADDR` where QEMU waits, unix:PATH or HOST:PORT; default: SOCKET.incoming")
	fs.BoolVar(&q.Resume, "resume", false, "the VM runs there already and has lost the rest of its memory")
	fs.DurationVar(&record, "record", 0, "note for this `TIME` what memory the VM touches first, and keep that with the image")
	fs.BoolVar(&q.NoFill, "no-fill", false, "send nothing that is not asked for; Ctrl-C ends it, with exit code 0")
	unforked = withoutVolumesFlag(fs)
	sendingFlags(cmd, &rate, &page, &patience)
	return cmd
}

// restore runs a restore. Whatever ends it, it says who has the VM.
func (t *target) restore(cmd *cobra.Command, name string, q admin.RestoreImage) error {
	at := qemu.Progress{Owner: qemu.Source}
	if q.Resume {
		at.Owner, at.Ran = qemu.Destination, true
	}
	var result admin.Restored
	err := t.do(cmd, func(ctx context.Context, c *admin.Client) (err error) {
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
		defer stop()
		bar := newBar(cmd.ErrOrStderr())
		defer bar.end()
		result, err = c.RestoreImage(ctx, name, q, steps(cmd.ErrOrStderr(), bar, &at))
		if said := admin.OwnerOf(err); said != "" {
			at.Owner = qemu.Owner(said)
		} else if errors.Is(err, admin.ErrStopped) && at.Owner == qemu.Source {
			// Progress comes now and then: the VM may have been handed over since.
			at.Owner = qemu.Destination
			err = fmt.Errorf("%w; %s", err, perhapsAt(name, q))
		} else if err != nil && at.Owner == qemu.Destination {
			// It is the server that has gone.
			err = fmt.Errorf("%w; %s", err, restoredTo(at, name, q, err))
		}
		return err
	})
	if err != nil {
		return t.failedMove(cmd, at.Owner, err)
	}
	return t.printRestored(cmd, result)
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

// job runs long work of the server, with a progress bar, and prints what came of it. The first signal ends it in order.
func job[T any](t *target, cmd *cobra.Command, run func(context.Context, *admin.Client, func(admin.JobProgress)) (T, error), show func(*cobra.Command, T) error) error {
	return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
		defer stop()
		bar := newBar(cmd.ErrOrStderr())
		result, err := run(ctx, c, bar.show)
		bar.end()
		if err != nil && ctx.Err() != nil {
			name := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
			if errors.As(err, new(*admin.Error)) { // it says more: that a VM runs on
				return fmt.Errorf("%s: %w", name, err)
			}
			return fmt.Errorf("%s: interrupted", name)
		}
		if err != nil {
			return err
		}
		return show(cmd, result)
	})
}

// absoluteBoth makes paths absolute, for the server: of an address, and of a monitor, if given.
func absoluteBoth(addr, socket *string) (err error) {
	if *addr != "" {
		if *addr, err = absolute(*addr); err != nil {
			return err
		}
	}
	if *socket != "" {
		*socket, err = filepath.Abs(*socket)
	}
	return err
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
	has := "which has all of its memory"
	if r.MissingPages > 0 {
		has = fmt.Sprintf("which lacks %d pages (%s) and waits when it touches one: have it listen again (migrate-recover), then restore with --resume", r.MissingPages, size(r.MissingPages*qemu.PageSize))
	}
	out.row("The VM:", "is at the "+r.Owner+", "+has)
	if r.ToRunSeconds > 0 { // it is not known of a VM that ran already
		out.row("Could run after:", seconds(r.ToRunSeconds))
	}
	out.row("Took:", seconds(r.TookSeconds))
	out.row("Sent:", fmt.Sprintf("%s; %d pages with data, %d free or zero", size(r.SentBytes), r.DataPages, r.ZeroPages))
	out.row("Asked for:", fmt.Sprintf("%d times", r.Demanded))
	if r.Prefetched > 0 {
		out.row("Sent first:", fmt.Sprintf("%d chunks of the working set", r.Prefetched))
	}
	if r.Recorded > 0 {
		out.row("Recorded:", fmt.Sprintf("%d chunks of the working set", r.Recorded))
	}
	out.row("Connection lost:", fmt.Sprintf("%d times", r.Losses))
	return out.flush()
}
