package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/internal/nbdattach"
	"lsad/internal/nbdclient"
)

func newAttach() *cobra.Command {
	t := &target{}
	var list bool
	var o nbdattach.Options
	cmd := &cobra.Command{
		Use:   "attach VOLUME|URI [/dev/nbdN]",
		Short: "Make an NBD export a disk of this machine, /dev/nbdN, and keep it connected",
		Long: `Make a volume of a server on this machine, or any NBD export, a disk of this machine through the
kernel's NBD client, on the device named or on one that is free. The command prints the device,
stays, and connects again when the server was restarted: what reads and writes meanwhile waits,
for as long as --timeout says. It does not connect to a server that may have lost writes that it
had acknowledged, as after a power failure: then the device is disconnected, and users of it see
errors. SIGINT or SIGTERM detaches the device, unless it is mounted; then it stays attached, but
unwatched. To attach the same volume again, with or without the name of the device, takes such a
device over, with the number of connections that it has.

It must run as root, and the driver must be loaded (modprobe nbd).`,
		Example: `  lsad attach vol0
  lsad attach nbd://storage.example/db /dev/nbd3 --connections 4
  lsad attach --list`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case list && len(args) > 0:
				return config.Usagef("unexpected argument %q: --list takes none", args[0])
			case !list && len(args) == 0:
				return config.Usagef("VOLUME is missing: %s", cmd.UseLine())
			case len(args) > 2:
				return config.Usagef("unexpected argument %q: %s", args[2], cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if list {
				return listAttached(cmd, t)
			}
			if o.Connections < 1 || o.Connections > nbdattach.MaxConnections {
				return config.Usagef("connections %d: from 1 to %d", o.Connections, nbdattach.MaxConnections)
			}
			if o.Timeout < time.Second {
				return config.Usagef("timeout %v: at least 1s", o.Timeout)
			}
			var err error
			if o.Device = -1; len(args) == 2 {
				if o.Device, err = nbdattach.ParseDevice(args[1]); err != nil {
					return config.Usagef("%v", err)
				}
			}
			if o.URI, err = t.exportURI(cmd, args[0]); err != nil {
				return err
			}
			if o.Target, err = nbdclient.ParseURI(o.URI); err != nil {
				return config.Usagef("%v", err)
			}
			return attach(cmd, t, o)
		},
	}
	t.flags(cmd)
	cmd.Flags().IntVar(&o.Connections, "connections", nbdattach.DefaultConnections, "`N` connections to the server")
	cmd.Flags().DurationVar(&o.Timeout, "timeout", nbdattach.DefaultTimeout, "how long reads and writes wait for a server that is gone, `TIME`")
	cmd.Flags().BoolVar(&list, "list", false, "list what is attached")
	return cmd
}

// attach attaches, says so, and stays until the device is detached or a signal comes.
func attach(cmd *cobra.Command, t *target, o nbdattach.Options) error {
	o.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	a, err := nbdattach.Attach(ctx, o)
	if err != nil {
		return err
	}
	device := a.Path()
	if t.json {
		err = printJSON(cmd, map[string]any{"device": device, "size_bytes": a.Size(), "uri": o.URI})
	} else {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), device)
	}
	if err == nil {
		err = newNotifier(os.Getenv, os.Getpid()).send("READY=1", "STATUS="+device+" is "+o.URI)
	}
	if err != nil {
		o.Logger.Warn("could not tell that it is attached", "device", device, "error", err)
	}
	err = a.Run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		stop() // another signal ends it at once
		if err = a.Detach(); errors.Is(err, nbdattach.ErrInUse) {
			o.Logger.Warn("it stays attached, and nobody reconnects it until lsad attach runs again for this volume, and takes it over", "device", device, "error", err)
			err = nil
		}
	}
	return errors.Join(err, a.Close())
}

// attached is one device as --list shows it.
type attached struct {
	Device      string `json:"device"`
	Volume      string `json:"volume"`
	Server      string `json:"server"`
	SizeBytes   int64  `json:"size_bytes"`
	Connections int    `json:"connections"`
	Incarnation string `json:"incarnation,omitempty"`
	// State is "watched": connections that break are replaced; "unwatched": nobody does; "foreign": attached by
	// another program; or "disconnected": something still has it open.
	State string `json:"state"`
}

func listAttached(cmd *cobra.Command, t *target) error {
	all, err := nbdattach.List()
	if err != nil {
		return err
	}
	rows := []attached{}
	for _, i := range all {
		row := attached{Device: i.Path, SizeBytes: i.SizeBytes, Connections: i.Connections, Incarnation: i.Incarnation, State: "foreign"}
		if target, err := nbdclient.ParseURI(i.Target); err == nil {
			row.Volume, row.Server, row.State = target.Export, target.Network+":"+target.Address, "unwatched"
		}
		if i.Watched && row.Server != "" {
			row.State = "watched"
		}
		if !i.Connected {
			row.State = "disconnected"
		}
		rows = append(rows, row)
	}
	if t.json {
		return printJSON(cmd, rows)
	}
	out := newTable(cmd.OutOrStdout(), "DEVICE", "VOLUME", "SERVER", "SIZE", "CONNECTIONS", "STATE")
	for _, r := range rows {
		out.row(r.Device, orDash(r.Volume), orDash(r.Server), size(r.SizeBytes), strconv.Itoa(r.Connections), r.State)
	}
	return out.flush()
}

func newDetach() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "detach /dev/nbdN",
		Short: "Disconnect an attached disk",
		Long:  "Disconnect a disk that lsad attach connected, after writing out what the kernel has cached of it. One that is mounted, held by something else, or that another program connected is not disconnected without --force, which writes nothing out, and fails what waits for a server that is gone.",
		Example: `  lsad detach /dev/nbd0
  lsad attach --list                  what there is`,
		Args: takes("/dev/nbdN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := nbdattach.Detach(args[0], force); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "detached %s\n", args[0])
			return err
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "disconnect it at once, although it is in use or its server is gone")
	return cmd
}
