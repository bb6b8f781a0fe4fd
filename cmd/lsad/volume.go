package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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

// splitSnapshot reads VOLUME@SNAPSHOT.
func splitSnapshot(s string) (volume, snapshot string, err error) {
	volume, snapshot, ok := strings.Cut(s, "@")
	if !ok {
		return "", "", config.Usagef("snapshot %q: want VOLUME@SNAPSHOT, such as web@monday", s)
	}
	if err := config.CheckVolumeName(volume); err != nil {
		return "", "", err
	}
	return volume, snapshot, config.CheckVolumeName(snapshot)
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

func volumeList(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List volumes and snapshots",
		Example: `  lsad volume list
  lsad volume list --json | jq -r '.[].name'`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				all, err := c.Volumes(ctx)
				if err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, all)
				}
				return printVolumes(cmd, all)
			})
		},
	}
}

func printVolumes(cmd *cobra.Command, all []admin.Volume) error {
	out := newTable(cmd.OutOrStdout(), "NAME", "SIZE", "COPIES", "MAPPED", "CREATED", "ORIGIN", "CLIENTS")
	for _, v := range all {
		out.row(v.Name, size(v.SizeBytes), strconv.Itoa(v.Copies), size(v.MappedBytes), date(v.Created), orDash(v.Origin), strconv.Itoa(len(v.Clients)))
		for _, s := range v.Snapshots {
			out.row(v.Name+"@"+s.Name, size(s.SizeBytes), strconv.Itoa(v.Copies), size(s.OwnBytes), date(s.Created), "-", "-")
		}
	}
	return out.flush()
}

func volumeShow(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME|VOLUME@SNAPSHOT",
		Short: "Show one volume, its snapshots and clients, or one snapshot",
		Example: `  lsad volume show web
  lsad volume show web@monday`,
		Args: takes("NAME|VOLUME@SNAPSHOT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				name, snapshot, isSnapshot := strings.Cut(args[0], "@")
				v, err := c.Volume(ctx, name)
				if err != nil {
					return err
				}
				if isSnapshot {
					return showSnapshot(cmd, t, v, snapshot)
				}
				if t.json {
					return printJSON(cmd, v)
				}
				return printVolume(cmd, v)
			})
		},
	}
}

// showSnapshot shows one of the volume's snapshots.
func showSnapshot(cmd *cobra.Command, t *target, v admin.Volume, name string) error {
	for _, s := range v.Snapshots {
		if s.Name != name {
			continue
		}
		if t.json {
			return printJSON(cmd, s)
		}
		out := newTable(cmd.OutOrStdout())
		out.row("Name:", v.Name+"@"+s.Name)
		out.row("Size:", fmt.Sprintf("%s (%d bytes)", size(s.SizeBytes), s.SizeBytes))
		out.row("Own:", fmt.Sprintf("%s (%d bytes)", size(s.OwnBytes), s.OwnBytes))
		out.row("Created:", date(s.Created))
		return out.flush()
	}
	return fmt.Errorf("volume %q has no snapshot %q: lsad volume show %s lists those that it has", v.Name, name, v.Name)
}

func printVolume(cmd *cobra.Command, v admin.Volume) error {
	out := newTable(cmd.OutOrStdout())
	out.row("Name:", v.Name)
	out.row("Size:", fmt.Sprintf("%s (%d bytes)", size(v.SizeBytes), v.SizeBytes))
	out.row("Copies:", strconv.Itoa(v.Copies))
	out.row("Mapped:", fmt.Sprintf("%s (%d bytes)", size(v.MappedBytes), v.MappedBytes))
	out.row("Created:", date(v.Created))
	out.row("Origin:", orDash(v.Origin))
	for i, s := range v.Snapshots {
		out.row(first("Snapshots:", i), fmt.Sprintf("%s, %s, own %s, %s", s.Name, size(s.SizeBytes), size(s.OwnBytes), date(s.Created)))
	}
	for i, c := range v.Clients {
		out.row(first("Clients:", i), c)
	}
	return out.flush()
}

// first is the label in the first of several rows.
func first(label string, i int) string {
	if i == 0 {
		return label
	}
	return ""
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

// onSnapshot is a command whose first argument is VOLUME@SNAPSHOT.
func onSnapshot(t *target, said string, call func(c *admin.Client) func(context.Context, string, string) (admin.Volume, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		volume, snapshot, err := splitSnapshot(args[0])
		if err != nil {
			return err
		}
		return t.change(cmd, fmt.Sprintf(said, args[0]), func(ctx context.Context, c *admin.Client) (admin.Volume, error) {
			return call(c)(ctx, volume, snapshot)
		})
	}
}

func volumeSnapshot(t *target) *cobra.Command {
	return &cobra.Command{
		Use:     "snapshot VOLUME@SNAPSHOT",
		Short:   "Take a snapshot of a volume",
		Long:    "Take a snapshot of a volume, at once and while clients use it. It is exported read-only as VOLUME@SNAPSHOT.",
		Example: `  lsad volume snapshot web@monday`,
		Args:    takes("VOLUME@SNAPSHOT"),
		RunE: onSnapshot(t, "took snapshot %s", func(c *admin.Client) func(context.Context, string, string) (admin.Volume, error) {
			return c.Snapshot
		}),
	}
}

func volumeRevert(t *target) *cobra.Command {
	return &cobra.Command{
		Use:     "revert VOLUME@SNAPSHOT",
		Short:   "Make a volume what it was at a snapshot",
		Long:    "Make a volume what it was at a snapshot. What was written since is lost; all snapshots stay. It is refused while clients are connected to the volume.",
		Example: `  lsad volume revert web@monday`,
		Args:    takes("VOLUME@SNAPSHOT"),
		RunE: onSnapshot(t, "reverted to %s", func(c *admin.Client) func(context.Context, string, string) (admin.Volume, error) {
			return c.Revert
		}),
	}
}

func volumeClone(t *target) *cobra.Command {
	return &cobra.Command{
		Use:     "clone VOLUME@SNAPSHOT NAME",
		Short:   "Make a writable volume of a snapshot",
		Long:    "Make a writable volume of a snapshot, at once; the two share what neither changes.",
		Example: `  lsad volume clone web@monday web-test`,
		Args:    takes("VOLUME@SNAPSHOT", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			volume, snapshot, err := splitSnapshot(args[0])
			if err == nil {
				err = config.CheckVolumeName(args[1])
			}
			if err != nil {
				return err
			}
			return t.change(cmd, fmt.Sprintf("created volume %s from %s", args[1], args[0]), func(ctx context.Context, c *admin.Client) (admin.Volume, error) {
				return c.Clone(ctx, volume, snapshot, args[1])
			})
		},
	}
}

// noSnapshot says what a name with an @ in it cannot have done to it.
func noSnapshot(name, what string) error {
	if volume, _, ok := strings.Cut(name, "@"); ok {
		return config.Usagef("%s: a snapshot cannot be %s; name a volume: %s", name, what, volume)
	}
	return nil
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
