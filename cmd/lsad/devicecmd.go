package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/server/admin"
)

func newDeviceAdd(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "add PATH[:SIZE]",
		Short: "Make an empty device part of the array",
		Long: `Make a block device, or a file, part of the array of a running server, which writes to it from then
on. One that carries an array, or whose first MiB holds anything but zeros, is refused; what else it
held is gone. With SIZE a file is made.
Second copies that are missing are rebuilt where the new device makes room for them.`,
		Example: `  lsad device add /dev/sdd
  lsad device add /srv/lsad/dev4:4GiB`,
		Args: takes("PATH[:SIZE]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				d, err := addDevice(ctx, c, args[0])
				if err != nil {
					return err
				}
				return t.printDone(cmd, d, fmt.Sprintf("added %s in slot %d: %s, %d segments", d.Name, d.Slot, size(d.SizeBytes), d.Segments))
			})
		},
	}
}

func newDeviceRemove(t *target) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "remove DEVICE",
		Short: "Move what a device holds to the others, and take it out of the array",
		Long: `Move everything that a device holds to the other devices, and take it out of the array, while the
server serves. DEVICE is a name or a slot, as lsad device list shows them. It is refused where the
others have no room for it. Breaking the command off, or stopping the server, leaves the device in
the array unless all was moved by then; what was moved stays where it is. Afterwards the device is
blank and nothing uses it.`,
		Example: `  lsad device remove dev3
  lsad device remove 3`,
		Args: takes("DEVICE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
				defer stop()
				d, err := removeDevice(ctx, cmd, c, args[0], force)
				if err != nil {
					return err
				}
				return t.printDone(cmd, d, "removed "+d.Name)
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove it even if blocks on it cannot be read and have no other copy: they are lost")
	return cmd
}

func newDeviceReplace(t *target) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "replace DEVICE PATH[:SIZE]",
		Short: "Add a device, move what another holds away, and remove that",
		Long: `Add a device and remove another, as lsad device add and lsad device remove do one after the other.
If the second part fails or is broken off, both are in the array: remove the old one again later.
(If all was moved when it was broken off, the old one may be gone: lsad device list shows it.)`,
		Example: `  lsad device replace /dev/sdb /dev/sdd
  lsad device replace 2 /srv/lsad/dev4:4GiB`,
		Args: takes("DEVICE", "PATH[:SIZE]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
				defer stop()
				added, err := addDevice(ctx, c, args[1])
				if err != nil {
					return err
				}
				removed, err := removeDevice(ctx, cmd, c, args[0], force)
				if err != nil {
					if errors.Is(err, errBrokenOff) {
						return fmt.Errorf("%s is in the array now; %w", added.Name, err)
					}
					return fmt.Errorf("%s is in the array now, and %s still is: %w", added.Name, args[0], err)
				}
				return t.printDone(cmd, added, fmt.Sprintf("replaced %s by %s", removed.Name, added.Name))
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "as of lsad device remove")
	return cmd
}

func addDevice(ctx context.Context, c *admin.Client, arg string) (admin.Device, error) {
	spec, err := config.ParseDeviceSpec(arg)
	if err != nil {
		return admin.Device{}, err
	}
	path, err := filepath.Abs(spec.Path)
	if err != nil {
		return admin.Device{}, err
	}
	return c.AddDevice(ctx, admin.AddDevice{Path: path, SizeBytes: int64(spec.Size)})
}

// removeDevice shows how far it is while the server moves what the device holds.
func removeDevice(ctx context.Context, cmd *cobra.Command, c *admin.Client, device string, force bool) (admin.Device, error) {
	d, err := watchWork(ctx, cmd, c, "moved", func(w admin.Work) (done, total int64) {
		if !w.Removal.Running {
			return 0, 0
		}
		return min(w.Removal.DoneBytes, w.Removal.Bytes), w.Removal.Bytes
	}, func(ctx context.Context) (admin.Device, error) { return c.RemoveDevice(ctx, device, force) })
	if errors.Is(err, errBrokenOff) {
		err = fmt.Errorf("remove device %s: %w: it stays in the array, unless all was moved by then: see lsad device list", device, err)
	}
	return d, err
}

// printDone says what was done, in words or, for programs, as what it concerned.
func (t *target) printDone(cmd *cobra.Command, v any, words string) error {
	if t.json {
		return printJSON(cmd, v)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), words)
	return err
}
