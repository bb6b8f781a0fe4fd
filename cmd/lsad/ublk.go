package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"lsad/server/admin"
	"lsad/server/ublk"
)

func newUblk() *cobra.Command {
	t := &target{}
	cmd := group("ublk", "Make volumes disks of the server's machine, /dev/ublkbN")
	cmd.Long = `Make volumes disks of the machine that the server runs on, by Linux's ublk driver. The server
must run as root, and the driver must be loaded (modprobe ublk_drv). The disks outlive a server
that is killed: what is read and written then waits for the next one. A server that is stopped
removes its disks, except for those that are mounted, which wait as well.`
	cmd.Example = `  lsad ublk add vol0
  lsad ublk list
  lsad ublk del vol0`
	t.flags(cmd)
	cmd.AddCommand(ublkAdd(t), ublkDel(t), ublkList(t))
	return cmd
}

func ublkAdd(t *target) *cobra.Command {
	var q admin.AddUblk
	cmd := &cobra.Command{
		Use:   "add VOLUME | VOLUME@SNAPSHOT",
		Short: "Make a volume a disk, and print its name",
		Example: `  lsad ublk add vol0
  lsad ublk add db --queues 4 --depth 256
  mount $(lsad ublk add vol0@monday) /mnt`,
		Args: takes("VOLUME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Volume = args[0]
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				d, err := c.AddUblk(ctx, q)
				if err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, d)
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), d.Path)
				return err
			})
		},
	}
	cmd.Flags().IntVar(&q.Queues, "queues", ublk.DefaultQueues, "`N` queues, each with a thread of the server; the kernel makes no more than there are processors")
	cmd.Flags().IntVar(&q.Depth, "depth", ublk.DefaultDepth, "`N` requests under way in each queue; each may take 512 KiB of memory")
	cmd.Flags().BoolVar(&q.ReadOnly, "read-only", false, "have the kernel refuse writes")
	return cmd
}

func ublkDel(t *target) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "del VOLUME | DEVICE",
		Short: "Remove a disk; the volume stays",
		Long:  "Remove a disk, after writing out what the kernel has cached of it. The volume stays. One that is mounted, or held by something else, is not removed without --force, which writes nothing out, and loses what was not written yet.",
		Example: `  lsad ublk del vol0
  lsad ublk del /dev/ublkb1`,
		Args: takes("VOLUME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				if err := c.DeleteUblk(ctx, args[0], force); err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, map[string]string{"removed": args[0]})
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", args[0])
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove it at once, although it is in use or waits for a server")
	return cmd
}

func ublkList(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the disks",
		Example: `  lsad ublk list
  lsad ublk list --json | jq -r '.[].path'`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				all, err := c.Ublk(ctx)
				if err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, all)
				}
				out := newTable(cmd.OutOrStdout(), "DEVICE", "VOLUME", "SIZE", "QUEUES", "DEPTH", "READ-ONLY", "STATE", "IN USE", "PROBLEM")
				for _, d := range all {
					out.row(d.Path, orDash(d.Volume), size(d.SizeBytes), strconv.Itoa(d.Queues), strconv.Itoa(d.Depth), yesNo(d.ReadOnly), d.State, yesNo(d.InUse), orDash(d.Problem))
				}
				return out.flush()
			})
		},
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
