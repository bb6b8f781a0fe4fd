package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/kvmhook"
)

func (k *hook) run(cmd *cobra.Command) (err error) {
	if err := k.check(); err != nil {
		return err
	}
	log, err := newLogger(cmd.ErrOrStderr(), config.Default())
	if err != nil {
		return err
	}
	ctx, interrupt := context.WithCancel(cmd.Context())
	defer interrupt()
	defer cutHook(k).onSignals(log, interrupt)()
	kept, err := takeKept(os.Getenv, os.Getpid())
	if err != nil {
		return err
	}
	unix.Umask(0o077) // the sockets are private until they are shared
	gid, err := lookupGroup(k.group)
	if err != nil {
		return err
	}
	mon, err := k.monitor(ctx, gid, kept != nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mon.end()) }()
	src, err := k.source(ctx, cmd, log, kept)
	if src == nil || err != nil {
		return err
	}
	defer src.close()
	stop := context.AfterFunc(ctx, src.stop)
	defer stop()
	set, err := k.workingSet(cmd)
	if err != nil && kept != nil {
		log.Warn("which pages to fetch first is not known", "error", err)
		set, err = nil, nil
	}
	if err != nil {
		return err
	}
	h, err := kvmhook.New(ctx, kvmhook.Options{
		Source: src.Source, SourceStatus: src.status, Logger: log, NoFill: k.noFill, WorkingSet: set, Record: k.record,
		Keep: keeper(os.Getenv), Resume: kept,
	})
	if err != nil {
		return err
	}
	mon.watch(h.Status)
	err = k.serve(ctx, cmd.OutOrStdout(), h, gid, kept != nil)
	if k.record {
		err = errors.Join(err, k.keep(cmd, log, h.Recorded()))
	}
	return err
}

// cutHook is the end at once of a hook.
func cutHook(k *hook) cut {
	return cut{"a VM that is served stops at the next missing page that it touches", k.sockets.remove, os.Exit}
}

// serve listens until the VM has ended.
func (k *hook) serve(ctx context.Context, out io.Writer, h *kvmhook.Hook, gid int, resumes bool) error {
	l, err := k.sockets.listen(ctx, "socket", k.socket, gid)
	if err != nil {
		return err
	}
	defer l.Close()
	what := "Waiting for a VMM at " + k.socket
	if resumes {
		what = "Going on with the VM that an earlier hook served"
	}
	fmt.Fprintf(out, "Image %s, %s. %s; see how it is with:\n  %s hook status --socket %s\n",
		k.image, size(h.Status().ImageBytes), what, program(), quote(k.socket))
	err = h.Serve(ctx, l.(*net.UnixListener))
	return describeEnd(ctx, h.Status(), err)
}

// describeEnd says what an end means for the guest.
func describeEnd(ctx context.Context, st kvmhook.Status, err error) error {
	switch {
	case err == nil:
		return nil
	case st.State == kvmhook.StateWaiting && ctx.Err() != nil:
		return nil // nobody came
	case st.Kept && ctx.Err() != nil:
		return errors.New("stopped while the VM lives: it waits at the next missing page until systemd starts the service again (Restart= and FileDescriptorStoreMax=2 in its unit)")
	case st.Kept:
		return fmt.Errorf("%w; the VM waits at the next missing page, and goes on if systemd starts the service again and that does not fail", err)
	case ctx.Err() != nil:
		return errors.New("stopped while the VM lives: it stops at the next missing page that it touches, and cannot go on; restore it again")
	}
	return fmt.Errorf("%w; the VM stops at the next missing page that it touches, and cannot go on: restore it again", err)
}
