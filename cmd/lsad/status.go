package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"lsad/server/admin"
)

func newStatus() *cobra.Command {
	t := &target{}
	var connections bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of the server and its array",
		Example: `  lsad status
  lsad status --connections
  lsad status --json | jq .free_bytes`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				if connections {
					return showConnections(ctx, cmd, t, c)
				}
				s, err := c.Status(ctx)
				if err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, s)
				}
				return printStatus(cmd, s)
			})
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&connections, "connections", false, "list the NBD clients instead")
	return cmd
}

func showConnections(ctx context.Context, cmd *cobra.Command, t *target, c *admin.Client) error {
	all, err := c.Connections(ctx)
	if err != nil {
		return err
	}
	if t.json {
		return printJSON(cmd, all)
	}
	out := newTable(cmd.OutOrStdout(), "ID", "CLIENT", "EXPORT", "TLS", "SINCE", "IN FLIGHT", "RECEIVED", "SENT")
	for _, k := range all {
		tls := "no"
		if k.TLS {
			tls = "yes " + k.Certificate
		}
		out.row(strconv.FormatUint(k.ID, 10), k.Client, orDash(k.Export), tls, date(k.Since),
			strconv.Itoa(k.InFlight), size(int64(k.BytesReceived)), size(int64(k.BytesSent)))
	}
	return out.flush()
}

func printStatus(cmd *cobra.Command, s admin.Status) error {
	out := newTable(cmd.OutOrStdout())
	out.row("State:", s.State)
	if s.Problem != "" {
		out.row("Problem:", s.Problem)
	}
	out.row("Server:", fmt.Sprintf("lsad %s, pid %d, up %s", s.Version, s.PID, seconds(s.UptimeSeconds)))
	out.row("Data directory:", s.Dir)
	for _, d := range s.Metadata {
		state := "in service"
		switch {
		case d.InService:
		case len(s.Metadata) == 1: // the problem is said above
			state = "failing"
		default:
			state = "out of service: " + d.Problem
		}
		out.row("Metadata:", d.Dir+", "+state)
	}
	out.row("NBD:", orDash(strings.Join(s.Listen.NBD, ", ")))
	out.row("HTTP:", orDash(strings.Join(s.Listen.HTTP, ", ")))
	out.row("Capacity:", fmt.Sprintf("%s, %s used, %s free", size(s.SizeBytes), size(s.UsedBytes), size(s.FreeBytes)))
	out.row("Volumes:", fmt.Sprintf("%d, %d snapshots, %d connections", s.Volumes, s.Snapshots, s.Connections))
	out.row("Log:", fmt.Sprintf("at %d, durable to %d, checkpoint at %d", s.LSN.Committed, s.LSN.Durable, s.LSN.Checkpoint))
	how := "after a crash"
	if s.Recovery.Clean {
		how = "after a clean stop"
	}
	if s.Recovery.New {
		how = "the array was made"
	}
	out.row("Last start:", fmt.Sprintf("%s, took %s, %s of log scanned, %d records replayed",
		how, seconds(s.Recovery.Seconds), size(s.Recovery.Bytes), s.Recovery.Records))
	if err := out.flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout()); err != nil {
		return err
	}
	return printDevices(cmd, s.Devices)
}

func newDevice() *cobra.Command {
	t := &target{}
	cmd := group("device", "List, add, remove and replace the devices of the array")
	cmd.Example = `  lsad device list
  lsad device add /dev/sdd
  lsad device replace dev2 /srv/lsad/dev4:4GiB`
	t.flags(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List the devices of the array",
		Example: `  lsad device list
  lsad device list --json | jq -r '.[] | select(.in_service | not).name'`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				all, err := c.Devices(ctx)
				if err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, all)
				}
				if err := printDevices(cmd, all); err != nil {
					return err
				}
				w, err := c.Work(ctx)
				if err == nil && w.Rebuild.Running {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "rebuilding second copies: %d of %d pages of the map, %s written\n", w.Rebuild.Pages, w.Rebuild.Total, size(w.Rebuild.Blocks*4096))
				}
				return err
			})
		},
	})
	cmd.AddCommand(newDeviceAdd(t), newDeviceRemove(t), newDeviceReplace(t))
	return cmd
}

func printDevices(cmd *cobra.Command, all []admin.Device) error {
	out := newTable(cmd.OutOrStdout(), "SLOT", "DEVICE", "STATE", "SIZE", "LIVE", "SEGMENTS", "UNUSED", "OPEN", "SEALED", "EMPTIED")
	for _, d := range all {
		out.row(strconv.Itoa(d.Slot), d.Name, d.State, size(d.SizeBytes), size(d.LiveBytes), strconv.Itoa(d.Segments),
			strconv.Itoa(d.Unused), strconv.Itoa(d.Open), strconv.Itoa(d.Sealed), strconv.Itoa(d.Emptied))
	}
	if err := out.flush(); err != nil {
		return err
	}
	for _, d := range all {
		if d.Problem != "" {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), d.Problem); err != nil {
				return err
			}
		}
	}
	return nil
}
