package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"lsad/internal/config"
	"lsad/server/admin"
)

func newImage() *cobra.Command {
	t := &target{}
	cmd := group("image", "Keep the memory of virtual machines: import, list, fork, export")
	cmd.Long = `Keep the memory of virtual machines. An image holds the RAM of a paused VM, without the pages that
its kernel had free and those of zeros, and the VMM's device state. It is exported over NBD, read-only;
a fork of it is a writable clone.`
	cmd.Example = `  lsad image import web1 /dev/shm/web1.ram --qmp /run/web1.qmp
  lsad image list
  lsad image fork web1 web2`
	t.flags(cmd)
	cmd.AddCommand(imageImport(t), imageList(t), imageShow(t), imageDelete(t), imageRename(t), imageExportCommand(t), imageFork(t), imageIngest(t), imageRestore(t), imageMigrate(t))
	return cmd
}

func imageList(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List images and forks",
		Example: `  lsad image list
  lsad image list --json | jq -r '.[] | select(.writable | not).name'`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				all, err := c.Images(ctx)
				if err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, all)
				}
				out := newTable(cmd.OutOrStdout(), "NAME", "RAM", "STORED", "STATE", "IN USE", "FREE", "ZERO", "CREATED", "PARENT", "WRITABLE", "CLIENTS")
				for _, i := range all {
					p := i.Pages
					out.row(i.Name, size(i.RAMBytes), size(i.StoredBytes), size(i.StateBytes), share(p.InUse, p.Total), share(p.Free, p.Total), share(p.Zero, p.Total),
						date(i.Created), orDash(i.Parent), yesNo(i.Writable), strconv.Itoa(len(i.Clients)))
				}
				return out.flush()
			})
		},
	}
}

// share is a part of a whole for people.
func share(n, of int64) string { return fmt.Sprintf("%.0f%%", 100*float64(n)/float64(max(1, of))) }

func imageShow(t *target) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show one image: what it is and where the space went",
		Example: `  lsad image show web1`,
		Args:    takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				i, err := c.Image(ctx, args[0])
				if err != nil {
					return err
				}
				return t.printImage(cmd, i)
			})
		},
	}
}

// printImage prints one image.
func (t *target) printImage(cmd *cobra.Command, i admin.Image) error {
	if t.json {
		return printJSON(cmd, i)
	}
	out := newTable(cmd.OutOrStdout())
	out.row("Name:", i.Name)
	kind := "image, read-only"
	if i.Writable {
		kind = "fork, writable"
	}
	out.row("Kind:", kind)
	out.row("Created:", date(i.Created))
	out.row("Made from:", i.Source)
	out.row("Parent:", orDash(i.Parent))
	out.row("Machine:", orDash(i.Machine))
	out.row("Kernel:", orDash(i.Kernel))
	out.row("RAM:", fmt.Sprintf("%s (%d pages)", size(i.RAMBytes), i.Pages.Total))
	out.row("  in use:", pages(i.Pages.InUse, i)+", stored")
	if i.Parent != "" && !i.Writable {
		out.row("  of these:", pages(i.Pages.Shared, i)+", shared with the parent")
	}
	out.row("  free:", pages(i.Pages.Free, i)+", not stored")
	out.row("  zero:", pages(i.Pages.Zero, i)+", not stored")
	out.row("Free pages:", i.Why)
	out.row("Device state:", size(i.StateBytes))
	out.row("Takes:", fmt.Sprintf("%s (%d bytes) by itself", size(i.StoredBytes), i.StoredBytes))
	for n, b := range i.Blocks {
		out.row(first("RAM blocks:", n), blockText(&b))
	}
	for n, v := range i.Volumes {
		out.row(first("Volumes:", n), volumeText(&v))
	}
	if w := i.WorkingSet; w.Count > 0 {
		out.row("Working set:", fmt.Sprintf("%d chunks of %s", w.Count, size(w.ChunkBytes)))
	}
	for n, s := range i.Steps {
		out.row(first("Import took:", n), fmt.Sprintf("%s for %s", seconds(s.Seconds), s.Name))
	}
	for n, c := range i.Clients {
		out.row(first("Clients:", n), c)
	}
	return out.flush()
}

func pages(n int64, i admin.Image) string {
	return fmt.Sprintf("%s (%d pages, %s)", size(n*i.PageBytes), n, share(n, i.Pages.Total))
}

func blockText(b *admin.ImageBlock) string {
	text := fmt.Sprintf("%s, %s", b.Name, size(b.SizeBytes))
	for _, r := range b.Ranges {
		text += fmt.Sprintf(", %s at %#x", size(r.SizeBytes), r.GPA)
	}
	return text
}

func volumeText(v *admin.ImageVolume) string {
	if v.Clone != "" {
		text := fmt.Sprintf("%s, clone of %s@%s", v.Clone, v.Name, v.Snapshot)
		if v.Written {
			text += ", written to since"
		}
		return text
	}
	return v.Name + "@" + v.Snapshot
}

func imageDelete(t *target) *cobra.Command {
	return &cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete an image or a fork",
		Long:    "Delete an image with the snapshots of volumes that were taken for it, or a fork, whose volumes stay. It is refused while clients are connected. Images and forks that were made from it live on.",
		Example: `  lsad image delete web1`,
		Args:    takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				if err := c.DeleteImage(ctx, args[0]); err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, map[string]string{"deleted": args[0]})
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "deleted %s\n", args[0])
				return err
			})
		},
	}
}

func imageRename(t *target) *cobra.Command {
	return &cobra.Command{
		Use:     "rename NAME NEW",
		Short:   "Give an image another name",
		Long:    "Give an image another name. Clients stay connected.",
		Example: `  lsad image rename web1 web1-monday`,
		Args:    takes("NAME", "NEW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := config.CheckVolumeName(args[1]); err != nil {
				return err
			}
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				i, err := c.RenameImage(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, i)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "renamed %s to %s\n", args[0], args[1])
				return err
			})
		},
	}
}

func imageFork(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "fork IMAGE NAME",
		Short: "Make a writable clone of an image, and of its volumes",
		Long: `Make a writable clone of an image, at once and whatever its size; the two share what neither changes.
Where the image has snapshots of the VM's volumes, the fork has clones of them, NAME-VOLUME. A VM that is
resumed from it needs these as its disks: the disks of today do not fit the memory of then.

Two VMs resumed from one image are twins: the same host name, addresses, keys and state of the random
number generator, and a clock that stands where it stood. What has to differ the guest has to be told.`,
		Example: `  lsad image fork web1 web2`,
		Args:    takes("IMAGE", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := config.CheckVolumeName(args[1]); err != nil {
				return err
			}
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				i, err := c.ForkImage(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, i)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "forked %s as %s\n", args[0], args[1])
				for _, v := range i.Volumes {
					fmt.Fprintf(cmd.OutOrStdout(), "volume %s\n", volumeText(&v))
				}
				return nil
			})
		},
	}
}
