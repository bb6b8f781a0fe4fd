package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
)

func newServe() *cobra.Command {
	var file string
	var printConfig bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve volumes over NBD",
		Long: `Open the array in the data directory, or create one, and serve its volumes over NBD until
SIGINT or SIGTERM; a second signal ends at once, which loses nothing that was acknowledged.

Without arguments it makes ./lsad-data with four sparse device files of 4 GiB and a volume vol0
of 10 GiB, and prints the commands to use it. Every flag is also a key of the config file, which
--print-config shows; the flag wins.`,
		Example: `  lsad serve
  lsad serve --dir /srv/lsad --volume db:200GiB --device /dev/nvme0n1 --device /dev/nvme1n1
  lsad serve --nbd unix:/run/lsad/nbd.sock --nbd 0.0.0.0:10809 --tls-cert cert.pem --tls-key key.pem
  lsad serve --print-config > lsad.toml; lsad serve --config lsad.toml`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(file, cmd.Flags())
			if err != nil {
				return err
			}
			if printConfig {
				return writeConfig(cmd.OutOrStdout(), c)
			}
			return serve(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	config.Default().Flags(cmd.Flags())
	cmd.Flags().StringVar(&file, "config", "", "read settings from this TOML `FILE`")
	cmd.Flags().BoolVar(&printConfig, "print-config", false, "print the effective settings as a config file, and do nothing else")
	cmd.Flags().SortFlags = false
	return cmd
}

// writeConfig prints what serve would do with c, as a file that says the same.
func writeConfig(w io.Writer, c *config.Config) error {
	dir := &dataDir{path: c.Dir}
	m, err := dir.readMembers()
	if err != nil {
		return err
	}
	out := *c
	plan, err := planArray(c, m)
	if err != nil {
		return err
	}
	out.Device = texts(plan.devices)
	out.Volume = texts(plan.volumes)
	out.Meta = append([]string{}, plan.meta...)
	out.NBD = texts(c.NBDAddrs())
	out.TLS = c.TLSMode()
	text, err := out.TOML()
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// texts is the list of what String says; empty, not nil, so that it is printed.
func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, v.String())
	}
	return out
}

func newLogger(w io.Writer, c *config.Config) (*slog.Logger, error) {
	level, err := c.Level()
	if err != nil {
		return nil, err
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), nil
}

// serve runs a server until a signal, or until one of its parts fails.
func serve(ctx context.Context, c *config.Config, stdout, stderr io.Writer) error {
	log, err := newLogger(stderr, c)
	if err != nil {
		return err
	}
	ctx, interrupt := context.WithCancel(ctx)
	defer interrupt()
	defer cut{"nothing acknowledged is lost", func() {}, os.Exit}.onSignals(log, interrupt)()
	unix.Umask(0o077) // what is made is private; sockets are opened to the group afterwards

	s := &server{cfg: c, log: log, notify: newNotifier(os.Getenv, os.Getpid())}
	if err := s.start(ctx); err != nil {
		return err
	}
	if err := s.hints(stdout); err != nil {
		log.Warn("could not print the commands to use it", "error", err)
	}
	if err := s.notify.send("READY=1", "STATUS=serving"); err != nil {
		log.Warn("systemd", "error", err)
	}
	failed := s.wait(ctx)
	if err := s.notify.send("STOPPING=1", "STATUS=stopping"); err != nil {
		log.Warn("systemd", "error", err)
	}
	if err := s.stop(); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	log.Info("stopped")
	return failed
}

// cut is how a program ends at once.
type cut struct {
	means string // for people
	last  func() // called before
	exit  func(code int)
}

// sameSignal is how soon after the first a signal is that one once more: who stops a program and its process group, as
// timeout(1) does, sends it twice within a millisecond or two. Nobody is so fast by hand.
const sameSignal = 100 * time.Millisecond

// onSignals calls interrupt at the first SIGINT or SIGTERM and ends the process at the second. The function it
// returns ends that.
func (c cut) onSignals(log *slog.Logger, interrupt func()) (stop func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for first := (time.Time{}); ; {
			select {
			case <-done:
				return
			case sig := <-signals:
				if !first.IsZero() && time.Since(first) < sameSignal {
					continue
				}
				if !first.IsZero() {
					log.Warn("second signal: ending at once; "+c.means, "signal", sig)
					c.last()
					c.exit(exitFailed)
					return
				}
				first = time.Now()
				log.Info("stopping; a second signal ends at once", "signal", sig)
				interrupt()
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
		<-ended
	}
}
