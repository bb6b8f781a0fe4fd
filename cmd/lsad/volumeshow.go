package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"lsad/server/admin"
)

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
