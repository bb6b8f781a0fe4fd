package main

import (
	"time"

	"github.com/spf13/cobra"

	"lsad/internal/config"
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
	sockets                     hookSockets
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
