package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/internal/nbdclient"
	"lsad/kvmhook"
	"lsad/kvmhook/filesource"
	"lsad/kvmhook/localsource"
	"lsad/kvmhook/nbdsource"
	"lsad/server/admin"
)

// hookStatusSuffix makes the path of the status socket from that of the VMM's.
const hookStatusSuffix = ".status"

// hook is a page server for one VM.
type hook struct {
	target
	client                      *admin.Client // of the server that has the image, where it is named
	socket, image, order, group string
	noFill, record              bool
	timeout                     time.Duration
	connections                 int
}

func newHook() *cobra.Command {
	k := &hook{}
	cmd := &cobra.Command{
		Use:   "hook",
		Short: "Serve the memory of an image to a VMM, page by page",
		Long: `Wait on a unix socket for a VMM that restores a snapshot, and serve it the memory of an image through
userfaultfd: Firecracker with a memory backend of type Uffd, or a VMM that speaks the same handshake. The
guest runs at once; what it touches is fetched, and the rest follows in the background.

The image is one of a server on this machine, or comes from any NBD server, over
nbd://HOST/EXPORT, nbds://HOST/EXPORT?tls-certificates=DIR or nbd+unix:///EXPORT?socket=PATH, or is
a raw file, file:PATH, such as the VMM's own snapshot.

It serves one VM and ends when the VM does. It must not end before: the guest would stop at the next
page that it touches, and nobody else can go on serving it; but as a service of systemd with
FileDescriptorStoreMax=2 it can be started again and goes on.`,
		Example: `  lsad hook --socket /run/vm1.sock --image vm1
  lsad hook --socket /run/vm1.sock --image nbds://host2/vm1?tls-certificates=/etc/lsad/pki --source-timeout 10m
  lsad hook --socket /run/vm1.sock --image vm1 --record
  lsad hook --socket /run/vm1.sock --image file:/srv/snapshots/vm1.mem
  lsad hook status --socket /run/vm1.sock`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return k.run(cmd) },
	}
	k.flags(cmd)
	cmd.PersistentFlags().StringVar(&k.socket, "socket", "", "unix socket for the VMM, at `PATH`; its status is served at PATH"+hookStatusSuffix)
	f := cmd.Flags()
	f.StringVar(&k.image, "image", "", "`NAME` of an image of the server on this machine, an NBD URI, or file:PATH")
	f.BoolVar(&k.noFill, "no-fill", false, "fetch only what the guest touches, and nothing in the background")
	f.BoolVar(&k.record, "record", false, "record in which order the guest touches its memory; later restores fetch in that order. Implies --no-fill")
	f.StringVar(&k.order, "working-set", "", "read that order from `FILE`, or with --record write it there, instead of the image's entry on the server")
	f.DurationVar(&k.timeout, "source-timeout", 0, "give up when the source has been out of reach for so long; 0 waits for ever")
	f.IntVar(&k.connections, "connections", 4, "connections to the source, 1 to 64")
	f.StringVar(&k.group, "group", "", "let this `GROUP` use the socket too")
	withoutVolumesFlag(f)
	f.SortFlags = false
	cmd.AddCommand(newHookStatus(k))
	return cmd
}

func (k *hook) check() error {
	switch {
	case k.socket == "":
		return config.Usagef("--socket is missing: where is the VMM to connect?")
	case k.image == "":
		return config.Usagef("--image is missing: name an image of the server, or an NBD URI")
	case k.connections < 1 || k.connections > 64:
		return config.Usagef("--connections %d: must be 1 to 64", k.connections)
	case k.timeout < 0:
		return config.Usagef("--source-timeout %v: must not be negative", k.timeout)
	case k.record && k.order == "" && !k.named():
		return config.Usagef("--record needs --working-set FILE here: only an image of a server has an entry to record in")
	}
	_, err := config.ParseAddr("unix:" + k.socket + hookStatusSuffix)
	return err
}

// filePrefix marks an image that is a file.
const filePrefix = "file:"

// named says whether the image is one of a server's, by name.
func (k *hook) named() bool {
	return !nbdclient.IsURI(k.image) && !strings.HasPrefix(k.image, filePrefix)
}

// hookSource is where the image comes from.
type hookSource struct {
	kvmhook.Source
	stop   func()
	close  func() error
	status func() kvmhook.SourceStatus
}

func (k *hook) run(cmd *cobra.Command) error {
	if err := k.check(); err != nil {
		return err
	}
	log, err := newLogger(cmd.ErrOrStderr(), config.Default())
	if err != nil {
		return err
	}
	ctx, interrupt := context.WithCancel(cmd.Context())
	defer interrupt()
	defer onSignals(log, interrupt)()
	src, err := k.open(cmd, log)
	if err != nil {
		return err
	}
	defer src.close()
	kept, err := takeKept(os.Getenv, os.Getpid())
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, src.stop)
	defer stop()
	set, err := k.workingSet(cmd)
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
	err = k.serve(ctx, cmd.OutOrStdout(), h, kept != nil)
	if k.record {
		err = errors.Join(err, k.keep(cmd, log, h.Recorded()))
	}
	return err
}

// serve listens until the VM has ended.
func (k *hook) serve(ctx context.Context, out io.Writer, h *kvmhook.Hook, resumes bool) error {
	unix.Umask(0o077) // the sockets are private until they are shared
	gid, err := lookupGroup(k.group)
	if err != nil {
		return err
	}
	l, err := listen(ctx, "socket", config.Addr{Network: "unix", Address: k.socket}, gid)
	if err != nil {
		return err
	}
	defer l.Close()
	status, err := listen(ctx, "status socket", config.Addr{Network: "unix", Address: k.socket + hookStatusSuffix}, gid)
	if err != nil {
		return err
	}
	defer status.Close()
	what := "Waiting for a VMM at " + k.socket
	if resumes {
		what = "Going on with the VM that an earlier hook served"
	}
	fmt.Fprintf(out, "Image %s, %s. %s; see how it is with:\n  %s hook status --socket %s\n",
		k.image, size(h.Status().ImageBytes), what, program(), quote(k.socket))
	monitorCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	var monitor sync.WaitGroup
	var monitorErr error
	monitor.Go(func() { monitorErr = h.Monitor(monitorCtx, status) })
	err = h.Serve(ctx, l.(*net.UnixListener))
	end()
	monitor.Wait()
	return errors.Join(describeEnd(ctx, h.Status(), err), monitorErr)
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

// open connects to the source.
func (k *hook) open(cmd *cobra.Command, log *slog.Logger) (*hookSource, error) {
	if path, ok := strings.CutPrefix(k.image, filePrefix); ok {
		f, err := filesource.Open(path)
		if err != nil {
			return nil, err
		}
		return &hookSource{Source: f, stop: func() {}, close: f.Close, status: func() kvmhook.SourceStatus {
			return kvmhook.SourceStatus{Name: k.image}
		}}, nil
	}
	var to nbdclient.Target
	var err error
	if k.named() {
		to, err = k.local(cmd)
	} else if to, err = nbdclient.ParseURI(k.image); err != nil {
		err = config.Usagef("%v", err)
	}
	if err != nil {
		return nil, err
	}
	o := nbdsource.Options{Connections: k.connections, Timeout: k.timeout, Logger: log}
	n, err := nbdsource.Open(cmd.Context(), to, o)
	if err != nil {
		return nil, err
	}
	src := &hookSource{Source: n, stop: n.Stop, close: n.Close, status: func() kvmhook.SourceStatus {
		return kvmhook.SourceStatus{Name: k.image, OutageSeconds: n.Outage().Seconds(), Reconnects: n.Reconnects()}
	}}
	if k.named() {
		l := localsource.New(n, o, placesOf(k.client, k.image))
		over := src.status
		src.Source, src.close, src.status = l, l.Close, func() kvmhook.SourceStatus {
			st := over()
			st.DirectBytes = l.DirectBytes()
			return st
		}
	}
	return src, nil
}

// local is where the server on this machine exports the image.
func (k *hook) local(cmd *cobra.Command) (to nbdclient.Target, err error) {
	err = k.do(cmd, func(ctx context.Context, c *admin.Client) error {
		k.client = c
		image, err := c.Image(ctx, k.image)
		if err != nil {
			return err
		}
		if err := hookDisks(cmd, image); err != nil {
			return err
		}
		if image.Writable && len(image.Clients) > 0 {
			return fmt.Errorf("%q is a fork that others have open (%s) and may write: disconnect them, or name an image", k.image, strings.Join(image.Clients, ", "))
		}
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		for _, text := range st.Listen.NBD {
			a, err := config.ParseAddr(text)
			if err == nil && (to.Network == "" || a.Network == "unix") {
				to = nbdclient.Target{Network: a.Network, Address: a.Address, Export: k.image}
			}
		}
		if to.Network == "" {
			return errors.New("the server listens for NBD nowhere")
		}
		return nil
	})
	return to, err
}

// workingSet is the order in which to fill, nil if none is known.
func (k *hook) workingSet(cmd *cobra.Command) (*kvmhook.WorkingSet, error) {
	switch {
	case k.record || k.noFill:
		return nil, nil
	case k.order != "":
		text, err := os.ReadFile(k.order)
		if err != nil {
			return nil, fmt.Errorf("working set: %w", err)
		}
		set := new(kvmhook.WorkingSet)
		if err := json.Unmarshal(text, set); err != nil {
			return nil, fmt.Errorf("working set %s: %w", k.order, err)
		}
		return set, nil
	case !k.named():
		return nil, nil
	}
	var set *kvmhook.WorkingSet
	err := k.do(cmd, func(ctx context.Context, c *admin.Client) error {
		w, err := c.WorkingSet(ctx, k.image)
		if len(w.Chunks) > 0 {
			set = &kvmhook.WorkingSet{ChunkBytes: w.ChunkBytes, Chunks: w.Chunks}
		}
		return err
	})
	return set, err
}

// keep stores what was recorded. An interrupt that ended the hook does not keep it from that.
func (k *hook) keep(cmd *cobra.Command, log *slog.Logger, set *kvmhook.WorkingSet) error {
	if len(set.Chunks) == 0 {
		log.Warn("nothing was recorded: the guest touched none of its memory")
		return nil
	}
	if k.order != "" {
		text, err := json.Marshal(set)
		if err == nil {
			err = writeWhole(k.order, text)
		}
		if err != nil {
			return fmt.Errorf("working set: %w", err)
		}
		log.Info("working set recorded", "file", k.order, "chunks", len(set.Chunks))
		return nil
	}
	return k.do(cmd, func(ctx context.Context, c *admin.Client) error {
		kept, err := c.SetWorkingSet(ctx, k.image, admin.WorkingSet{ChunkBytes: set.ChunkBytes, Chunks: set.Chunks})
		if err == nil {
			log.Info("working set recorded", "image", k.image, "chunks", len(set.Chunks), "kept", kept)
		}
		return err
	})
}

// writeWhole replaces a file at once.
func writeWhole(path string, p []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func newHookStatus(k *hook) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how a running hook is",
		Example: `  lsad hook status --socket /run/vm1.sock
  lsad hook status --socket /run/vm1.sock --json | jq .resident_percent`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if k.socket == "" {
				return config.Usagef("--socket is missing: name the socket that the hook was started with")
			}
			st, err := kvmhook.ReadStatus(cmd.Context(), k.socket+hookStatusSuffix)
			if err != nil {
				return fmt.Errorf("%w; is it running?", err)
			}
			if k.json {
				return printJSON(cmd, st)
			}
			return printHook(cmd.OutOrStdout(), st)
		},
	}
}

func printHook(w io.Writer, st kvmhook.Status) error {
	out := newTable(w)
	count := func(n int64) string { return fmt.Sprint(n) }
	source := st.Source.Name
	if st.Source.OutageSeconds > 0 {
		source += ", out of reach for " + seconds(st.Source.OutageSeconds)
	}
	state := string(st.State)
	if st.Kept {
		state += ", kept for another hook"
	}
	if st.Source.DirectBytes > 0 {
		source += ", " + size(st.Source.DirectBytes) + " read past the server"
	}
	out.row("State:", state)
	out.row("Source:", fmt.Sprintf("%s, %d reconnects", source, st.Source.Reconnects))
	out.row("Image:", size(st.ImageBytes))
	if st.State != kvmhook.StateWaiting {
		out.row("Serving for:", seconds(st.ServedSeconds))
		out.row("Memory:", fmt.Sprintf("%s mapped, %s of it has content", size(st.MappedBytes), size(st.ContentBytes)))
		out.row("Resident:", fmt.Sprintf("%s of the content, %.1f %%", size(st.ResidentBytes), st.ResidentPercent))
		out.row("Faults:", strings.Join([]string{count(st.Faults), count(st.ZeroFaults) + " zeros", count(st.FetchedFaults) + " fetched",
			count(st.WaitedFaults) + " under way", count(st.SpuriousFaults) + " spurious", count(st.LostFaults) + " lost"}, ", "))
		out.row("Installed:", fmt.Sprintf("%s demanded, %s around it, %s filled", size(st.DemandedBytes), size(st.AroundBytes), size(st.FilledBytes)))
		out.row("Read:", fmt.Sprintf("%s, %s dropped; %s never have to be", size(st.ReadBytes), size(st.DroppedBytes), size(st.NotTransferredBytes)))
		out.row("Removed:", fmt.Sprintf("%s by the VMM, %s lost", size(st.RemovedBytes), size(st.PoisonedBytes)))
		out.row("Latency:", fmt.Sprintf("half below %d us, 99 of 100 below %d us", st.Latency.QuantileUs(0.5), st.Latency.QuantileUs(0.99)))
	}
	return out.flush()
}
