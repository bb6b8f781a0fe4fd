package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"lsad/internal/config"
	"lsad/server/admin"
)

func newVolume() *cobra.Command {
	t := &target{}
	cmd := group("volume", "Create, change and list volumes and snapshots")
	cmd.Example = `  lsad volume create web 20GiB
  lsad volume snapshot web@monday
  lsad volume list`
	t.flags(cmd)
	cmd.AddCommand(
		volumeCreate(t), volumeList(t), volumeShow(t), volumeResize(t), volumeDelete(t),
		volumeSnapshot(t), volumeClone(t), volumeRevert(t), volumeRename(t),
	)
	return cmd
}

// change runs a change of a volume and prints what it is now.
func (t *target) change(cmd *cobra.Command, said string, fn func(ctx context.Context, c *admin.Client) (admin.Volume, error)) error {
	return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
		v, err := fn(ctx, c)
		if err != nil {
			return err
		}
		if t.json {
			return printJSON(cmd, v)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
		return err
	})
}

func parseVolumeSize(s string) (config.Size, error) {
	n, err := config.ParseSize(s)
	if err == nil {
		err = config.CheckVolumeSize(n)
	}
	return n, err
}

func volumeCreate(t *target) *cobra.Command {
	var copies int
	cmd := &cobra.Command{
		Use:   "create NAME SIZE",
		Short: "Make an empty volume",
		Long:  "Make an empty volume. It is thin: it takes space only for what is written to it, so that sizes may add up to more than the array has. With --copies 2 each block lies on two devices, and the volume outlives the loss of any one.",
		Example: `  lsad volume create web 20GiB
  lsad volume create mail 20GiB --copies 2
  lsad volume create scratch 2T --json`,
		Args: takes("NAME", "SIZE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := config.CheckVolumeName(args[0]); err != nil {
				return err
			}
			n, err := parseVolumeSize(args[1])
			if err != nil {
				return err
			}
			if copies < 1 || copies > 2 {
				return config.Usagef("copies %d: must be 1 or 2", copies)
			}
			return t.change(cmd, fmt.Sprintf("created volume %s of %v", args[0], n), func(ctx context.Context, c *admin.Client) (admin.Volume, error) {
				return c.CreateVolume(ctx, args[0], int64(n), copies)
			})
		},
	}
	cmd.Flags().IntVar(&copies, "copies", 1, "of each block, on different devices: 1 or 2")
	return cmd
}

func volumeResize(t *target) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "resize NAME SIZE",
		Short: "Change the size of a volume",
		Long:  "Change the size of a volume. Growing works while clients use it. Shrinking needs --force, loses what lies beyond the new end, and is refused while clients are connected. A disk that lsad attach made grows when it connects the next time.",
		Example: `  lsad volume resize web 40GiB
  lsad volume resize web 10GiB --force`,
		Args: takes("NAME", "SIZE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := noSnapshot(args[0], "resized"); err != nil {
				return err
			}
			n, err := parseVolumeSize(args[1])
			if err != nil {
				return err
			}
			err = t.change(cmd, fmt.Sprintf("volume %s has %v now", args[0], n), func(ctx context.Context, c *admin.Client) (admin.Volume, error) {
				return c.ResizeVolume(ctx, args[0], int64(n), force)
			})
			if err != nil {
				return err
			}
			return t.noteDisks(cmd, args[0], int64(n))
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "allow a smaller size, which loses data")
	return cmd
}

func volumeDelete(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME | VOLUME@SNAPSHOT",
		Short: "Delete a volume with its snapshots, or one snapshot",
		Long:  "Delete a volume with its snapshots, or one snapshot. Clones live on. It is refused while clients are connected.",
		Example: `  lsad volume delete web@monday
  lsad volume delete web`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			volume, snapshot, isSnapshot := strings.Cut(args[0], "@")
			err := config.CheckVolumeName(volume)
			if isSnapshot {
				volume, snapshot, err = splitSnapshot(args[0])
			}
			if err != nil {
				return err
			}
			return t.do(cmd, func(ctx context.Context, c *admin.Client) (err error) {
				if isSnapshot {
					err = c.DeleteSnapshot(ctx, volume, snapshot)
				} else {
					err = c.DeleteVolume(ctx, volume)
				}
				if err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, map[string]string{"deleted": args[0]})
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "deleted %s\n", args[0])
				return err
			})
		},
	}
}

func volumeRename(t *target) *cobra.Command {
	return &cobra.Command{
		Use:     "rename NAME NEW",
		Short:   "Give a volume another name",
		Long:    "Give a volume another name. Clients stay connected.",
		Example: `  lsad volume rename web-test web2`,
		Args:    takes("NAME", "NEW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(noSnapshot(args[0], "renamed"), config.CheckVolumeName(args[1])); err != nil {
				return err
			}
			return t.change(cmd, fmt.Sprintf("renamed %s to %s", args[0], args[1]), func(ctx context.Context, c *admin.Client) (admin.Volume, error) {
				return c.RenameVolume(ctx, args[0], args[1])
			})
		},
	}
}
