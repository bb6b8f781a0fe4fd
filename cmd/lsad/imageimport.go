package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/memsvc"
	"lsad/server/admin"
)

func imageImport(t *target) *cobra.Command {
	q := admin.ImportImage{}
	cmd := &cobra.Command{
		Use:   "import NAME FILE",
		Short: "Make an image of the memory of a paused VM",
		Long: `Make an image of the memory of a paused VM, which the server reads from a file: the bytes of its RAM (a
file that backs it, or the memory file of a snapshot of Firecracker or Cloud Hypervisor), or an ELF core
(dump-guest-memory of QEMU). Holes of a sparse file are not read. Pages that the guest's kernel has free, and
pages of zeros, are not stored.

The VM has to be paused until the import has ended, and there has to be proof of it: QEMU's monitor, which is
asked before and afterwards, or your word. Ctrl-C leaves nothing behind.`,
		Example: `  lsad image import web1 /dev/shm/web1.ram --qmp /run/web1.qmp --with-volume web1-disk
  lsad image import web1 /srv/snap/mem --state /srv/snap/vmstate --layout firecracker --paused
  lsad image import web1-tuesday /dev/shm/web1.ram --parent web1 --qmp /run/web1.qmp
  lsad image import crashed vmcore.elf --paused`,
		Args: takes("NAME", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := config.CheckVolumeName(args[0]); err != nil {
				return err
			}
			if q.QMP == "" && !q.Paused {
				return config.Usagef("is the VM paused? Memory that changes while it is read makes no image: give --qmp SOCKET of its monitor, or --paused if you know that it is")
			}
			if q.QMP != "" && q.Paused {
				return config.Usagef("either --qmp or --paused says that the VM is paused, not both")
			}
			q.Name, q.File = args[0], args[1]
			for _, path := range []*string{&q.File, &q.State, &q.QMP} {
				if *path == "" {
					continue
				}
				absolute, err := filepath.Abs(*path)
				if err != nil {
					return err
				}
				*path = absolute
			}
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error { return t.runImport(ctx, cmd, c, q) })
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&q.State, "state", "", "`FILE` with the VMM's device state, kept with the image")
	fs.StringVar(&q.Layout, "layout", "auto", "where the file's RAM is in the guest: "+strings.Join(memsvc.LayoutNames(), ", ")+", or `GPA:SIZE,...`; auto tries")
	fs.BoolVar(&q.KeepFree, "keep-free", false, "store the pages that the guest has free, too")
	fs.StringArrayVar(&q.Volumes, "with-volume", nil, "take a snapshot of this `VOLUME` of the VM in the same pause; may be given several times")
	fs.StringVar(&q.Parent, "parent", "", "store only what differs from this earlier `IMAGE` of the VM")
	fs.StringVar(&q.QMP, "qmp", "", "`SOCKET` of QEMU's monitor, which proves that the VM is paused")
	fs.BoolVar(&q.Paused, "paused", false, "the VM is paused, and stays so: your word for it")
	return cmd
}

func (t *target) runImport(outer context.Context, cmd *cobra.Command, c *admin.Client, q admin.ImportImage) error {
	ctx, stop := signal.NotifyContext(outer, os.Interrupt, unix.SIGTERM)
	defer stop()
	bar := newBar(cmd.ErrOrStderr())
	i, err := c.ImportImage(ctx, q, bar.show)
	bar.end()
	if ctx.Err() == nil {
		if err != nil {
			return err
		}
		return t.printImage(cmd, i)
	}
	if _, err := c.Image(outer, q.Name); err == nil {
		return fmt.Errorf("import of image %s: interrupted too late: it is complete", q.Name)
	}
	return fmt.Errorf("import of image %s: interrupted; nothing is left of it", q.Name)
}
