package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"lsad/internal/config"
	"lsad/server/admin"
)

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
